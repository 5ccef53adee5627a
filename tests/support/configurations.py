"""What upstream's configurations say, as facts: the network, the steps to its input, and what its output becomes.

Upstream: PaddleOCR `configs/{cls,det,rec}`, from v2.0 to PP-OCRv6.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Section = dict[str, Any]

DECODE: Section = {"DecodeImage": {"img_mode": "BGR", "channel_first": False}}
IMAGENET: Section = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
NORMALISE: Section = {"NormalizeImage": {"scale": "1./255.", **IMAGENET, "order": "hwc"}}
END: list[Section] = [{"ToCHWImage": None}, {"KeepKeys": {"keep_keys": ["image", "shape"]}}]


@dataclass(frozen=True)
class Described:
    """One configuration.

    Attributes:
        file: below upstream's `configs`.
        network: its Architecture; of a distillation, the one that is taken.
        name: of the architecture that it is here.
        parameters: that it gives, or that the absence of a key means.
        train, evaluation: the steps.
        output: of PostProcess.
        settings: of Global.
        models: of a distillation, by their names.
    """

    file: str
    network: Section
    name: str
    parameters: Section
    train: list[Section]
    evaluation: list[Section]
    output: Section
    settings: Section = field(default_factory=dict)
    models: Section = field(default_factory=dict)

    def content(self) -> Section:
        """As YAML has it."""
        distillation = {"name": "DistillationModel", "algorithm": "Distillation", "model_type": "det"}
        return {
            "Global": self.settings,
            "Architecture": {**distillation, "Models": self.models} if self.models else self.network,
            "PostProcess": self.output,
            "Train": {"dataset": {"transforms": self.train}, "loader": {"num_workers": 4}},
            "Eval": {"dataset": {"transforms": self.evaluation}},
        }


# ---- detectors ---------------------------------------------------------------------------------------------------

PAGE_OUTPUT: Section = {
    "name": "DBPostProcess", "thresh": 0.3, "box_thresh": 0.6, "max_candidates": 1000, "unclip_ratio": 1.5,
}  # fmt: skip


def page_training(crop: int, *others: Section, shrink: float = 0.4) -> list[Section]:
    """The steps of a detector's training."""
    return [
        DECODE,
        {"DetLabelEncode": None},
        *others,
        {"IaaAugment": {"augmenter_args": [{"type": "Fliplr", "args": {"p": 0.5}}]}},
        {"EastRandomCropData": {"size": [crop, crop], "max_tries": 50, "keep_ratio": True}},
        {"MakeBorderMap": {"shrink_ratio": shrink, "thresh_min": 0.3, "thresh_max": 0.7, "total_epoch": 500}},
        {"MakeShrinkMap": {"shrink_ratio": shrink, "min_text_size": 8, "total_epoch": 500}},
        NORMALISE,
        *END,
    ]


def page_evaluation(resizing: Section | None = None) -> list[Section]:
    """The steps of a detector's evaluation."""
    return [DECODE, {"DetLabelEncode": None}, {"DetResizeForTest": resizing}, NORMALISE, *END]


def detector(
    file: str,
    name: str,
    parameters: Section,
    backbone: Section,
    neck: Section,
    head: Section | None = None,
    *,
    train: list[Section] | None = None,
    resizing: Section | None = None,
    output: Section | None = None,
    models: Section | None = None,
) -> Described:
    network = {
        "model_type": "det", "algorithm": "DB", "Transform": None, "Backbone": backbone, "Neck": neck,
        "Head": head or {"name": "DBHead", "k": 50},
    }  # fmt: skip
    return Described(
        file, network, name, parameters, train or page_training(640), page_evaluation(resizing), output or PAGE_OUTPUT,
        models={key: {**network, **value} for key, value in (models or {}).items()},
    )  # fmt: skip


def db(width: int) -> Section:
    return {"name": "DBFPN", "out_channels": width}


LARGE_HALF: Section = {"name": "MobileNetV3", "scale": 0.5, "model_name": "large", "disable_se": True}
RSE: Section = {"name": "RSEFPN", "out_channels": 96, "shortcut": True}
LK: Section = {"name": "LKPAN", "out_channels": 256}
RESNET_50: Section = {"name": "ResNet_vd", "in_channels": 3, "layers": 50}
LARGE_KERNEL: Section = {"name": "DBHead", "kernel_list": [7, 2, 2], "k": 50}
LOCAL: Section = {"name": "PFHeadLocal", "k": 50, "mode": "large"}
COPY: Section = {"CopyPaste": None}
SMALL = {"scale": 0.5, "disable_se": True, "out_channels": 96}
LCNET_V3: Section = {"name": "PPLCNetV3", "scale": 0.75, "det": True}
NO_NAN: Section = {"name": "DBHead", "k": 50, "fix_nan": True}
OF_DISTILLATION = {**PAGE_OUTPUT, "name": "DistillationDBPostProcess", "model_name": ["Student"], "key": "head_out"}
SEAL = {**PAGE_OUTPUT, "thresh": 0.2, "unclip_ratio": 0.5, "box_type": "poly"}
JITTER: Section = {"ColorJitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.7, "hue": 0.1}}
PERSPECTIVE: Section = {"RandomPerspective": {"prob": 0.3, "shear": 20.0, "fit_output": True, "fill_value": [0, 0, 0]}}
TEACHER_18 = {"Backbone": {"name": "ResNet_vd", "layers": 18}, "Neck": db(256), "freeze_params": True}
TEACHER_50 = {"Backbone": RESNET_50, "Neck": LK, "Head": LARGE_KERNEL, "return_all_feats": False}
UNTRAINED = {"pretrained": None, "freeze_params": False, "return_all_feats": False}
V6_TRAINING = page_training(640, COPY, JITTER, PERSPECTIVE)
FOUR_THOUSAND: Section = {"limit_side_len": 4000, "limit_type": "max"}

DETECTORS = [
    detector("ch_ppocr_v2.0/ch_det_mv3_db_v2.0.yml", "det_mobilenet_v3_dbfpn", SMALL, LARGE_HALF, db(96)),
    detector(
        "ch_ppocr_v2.0/ch_det_res18_db_v2.0.yml", "det_resnet18_vd_dbfpn", {"out_channels": 256},
        {"name": "ResNet_vd", "layers": 18, "disable_se": True}, db(256),
    ),
    detector(
        "ch_PP-OCRv2/ch_PP-OCRv2_det_cml.yml", "det_mobilenet_v3_dbfpn", SMALL, LARGE_HALF, db(96),
        train=page_training(960, COPY), output=OF_DISTILLATION,
        models={"Teacher": TEACHER_18, "Student": UNTRAINED, "Student2": UNTRAINED},
    ),
    detector(
        "ch_PP-OCRv3/ch_PP-OCRv3_det_cml.yml", "det_mobilenet_v3_rsefpn", SMALL, LARGE_HALF, RSE,
        output=OF_DISTILLATION, models={"Student": {}, "Student2": {}, "Teacher": TEACHER_50},
    ),
    detector(
        "PP-OCRv3/PP-OCRv3_server_det.yml", "det_resnet50_vd_lkpan", {"out_channels": 256}, RESNET_50, LK, LARGE_KERNEL,
    ),
    detector(
        "ch_PP-OCRv4/ch_PP-OCRv4_det_cml.yml", "det_pplcnet_v3_rsefpn", {"scale": 0.75, "out_channels": 96},
        {**LCNET_V3, "pretrained": False}, RSE, output=OF_DISTILLATION,
        resizing={"limit_side_len": 960, "limit_type": "max"}, models={"Student": {}, "Teacher": TEACHER_50},
    ),
    detector(
        "PP-OCRv4/PP-OCRv4_server_seal_det.yml", "det_pphgnet_small_lkpan", {"out_channels": 256},
        {"name": "PPHGNet_small", "det": True}, {**LK, "intracl": True}, LOCAL,
        train=page_training(640, shrink=0.8), resizing={"resize_long": 736}, output=SEAL,
    ),
    detector(
        "PP-OCRv5/PP-OCRv5_mobile_det.yml", "det_pplcnet_v3_rsefpn", {"scale": 0.75, "out_channels": 96}, LCNET_V3, RSE,
    ),
    detector(
        "PP-OCRv5/PP-OCRv5_server_det.yml", "det_pphgnet_v2_lkpan", {"out_channels": 256},
        {"name": "PPHGNetV2_B4", "det": True}, {**LK, "intracl": True}, LOCAL, train=page_training(640, COPY),
    ),
    detector(
        "PP-OCRv6/PP-OCRv6_tiny_det.yml", "det_pplcnet_v4_replkfpn", {"out_channels": 64, "kernel_size": 5},
        {"name": "PPLCNetV4", "det": True, "model_size": "tiny"},
        {"name": "UniRepLKFPN", "out_channels": 64, "dilated_kernel_size": 5, "shortcut": True},
        {**NO_NAN, "aux_in_channels": 64}, train=V6_TRAINING, resizing=FOUR_THOUSAND,
    ),
    detector(
        "PP-OCRv6/PP-OCRv6_medium_det.yml", "det_pplcnet_v4_replkpan", {"out_channels": 256},
        {"name": "PPLCNetV4", "det": True, "model_size": "medium"},
        {"name": "UniRepLKPAN", "out_channels": 256, "intracl": True}, {**NO_NAN, "aux_in_channels": 256},
        train=V6_TRAINING, resizing=FOUR_THOUSAND,
    ),
]  # fmt: skip


# ---- recognisers and the classifier ------------------------------------------------------------------------------

AUGMENT: Section = {"RecConAug": {"prob": 0.5, "ext_data_num": 2, "image_shape": [48, 320, 3], "max_text_length": 25}}
KEEP_LINE: Section = {"KeepKeys": {"keep_keys": ["image", "label", "length"]}}


def line_steps(height: int, encode: Section, *others: Section, resize: bool = True, **more: object) -> list[Section]:
    """The steps of a recogniser."""
    resizing = [{"RecResizeImg": {"image_shape": [3, height, 320], **more}}] if resize else []
    return [DECODE, *others, encode, *resizing, KEEP_LINE]


def recogniser(
    file: str,
    name: str,
    parameters: Section,
    backbone: Section,
    parts: Section,
    algorithm: str,
    *,
    train: list[Section],
    evaluation: list[Section],
    models: Section | None = None,
    output: str = "CTCLabelDecode",
    **settings: object,
) -> Described:
    network = {"model_type": "rec", "algorithm": algorithm, "Transform": None, "Backbone": backbone, **parts}
    return Described(
        file, network, name, parameters, train, evaluation,
        {"name": output, **({"model_name": list(models), "key": "head_out"} if models else {})},
        {"character_dict_path": "ppocr/utils/ppocr_keys_v1.txt", "use_space_char": True, "infer_mode": False, **settings},
        {key: {**network, **value} for key, value in (models or {}).items()},
    )  # fmt: skip


def lstm(hidden_size: int, **head: object) -> Section:
    neck = {"name": "SequenceEncoder", "encoder_type": "rnn", "hidden_size": hidden_size}
    return {"Neck": neck, "Head": {"name": "CTCHead", "fc_decay": 0.00001, **head}}


def several_heads(neck: Section, guide: Section, **head: object) -> Section:
    listed = [{"CTCHead": {"Neck": neck, "Head": {"fc_decay": 0.00001, **head}}}, guide]
    return {"Head": {"name": "MultiHead", "head_list": listed}}


PLAIN: Section = {"CTCLabelEncode": None}
MULTI: Section = {"MultiLabelEncode": None}
GUIDED: Section = {"MultiLabelEncode": {"gtc_encode": "NRTRLabelEncode"}}
SAR: Section = {"SARHead": {"enc_dim": 512, "max_text_length": 25}}
NRTR: Section = {"NRTRHead": {"nrtr_dim": 384, "max_text_length": 25}}
SVTR_V3: Section = {"name": "svtr", "dims": 64, "depth": 2, "hidden_dims": 120, "use_guide": True}
SVTR_V4: Section = {**SVTR_V3, "dims": 120, "kernel_size": [1, 3]}
SMALL_HALF: Section = {"name": "MobileNetV3", "scale": 0.5, "model_name": "small", "small_stride": [1, 2, 2, 2]}
ENHANCE: Section = {"name": "MobileNetV1Enhance", "scale": 0.5}
ENHANCE_V3: Section = {**ENHANCE, "last_conv_stride": [1, 2], "last_pool_type": "avg"}
LINES_32 = {
    "train": line_steps(32, PLAIN, {"RecAug": None}),
    "evaluation": line_steps(32, PLAIN),
}
LINES_48 = {
    "train": line_steps(48, MULTI, AUGMENT, {"RecAug": None}),
    "evaluation": line_steps(48, MULTI),
}
# Lines of several sizes, which the data set makes.
SCALES = {
    "train": line_steps(48, GUIDED, AUGMENT, {"RecAug": None}, resize=False),
    "evaluation": line_steps(48, GUIDED),
}
V2_ENDS = {"last_stride": (1, 1), "last_pool": "max"}
V3_ENDS = {"last_stride": (1, 2), "last_pool": "avg"}
MOBILE = {"scale": 0.5, "strides": (1, 2, 2, 2), "hidden_size": 48}
LIGHT: Section = {"name": "lightsvtr", "depth": 2, "local_kernel": 7, "use_guide": False}

RECOGNISERS = [
    recogniser(
        "ch_ppocr_v2.0/rec_chinese_lite_train_v2.0.yml", "rec_mobilenet_v3_bilstm_ctc", MOBILE, SMALL_HALF, lstm(48),
        "CRNN", **LINES_32, character_type="ch",
    ),
    recogniser(
        "ch_ppocr_v2.0/rec_chinese_lite_train_distillation_v2.1.yml", "rec_mobilenet_v3_bilstm_ctc", MOBILE, SMALL_HALF,
        lstm(48), "CRNN", **LINES_32, models={"Student": UNTRAINED, "Teacher": UNTRAINED},
        output="DistillationCTCLabelDecode",
    ),
    recogniser(
        "ch_ppocr_v2.0/rec_chinese_common_train_v2.0.yml", "rec_resnet34_vd_bilstm_ctc", {"hidden_size": 256},
        {"name": "ResNet", "layers": 34}, lstm(256), "CRNN", **LINES_32,
    ),
    recogniser(
        "ch_PP-OCRv2/ch_PP-OCRv2_rec_distillation.yml", "rec_mobilenet_v1_enhance_bilstm_ctc",
        {"scale": 0.5, "hidden_size": 64, "mid_channels": 96, **V2_ENDS}, ENHANCE, lstm(64, mid_channels=96), "CRNN",
        **LINES_32, models={"Teacher": UNTRAINED, "Student": UNTRAINED}, output="DistillationCTCLabelDecode",
    ),
    recogniser(
        "PP-OCRv3/en_PP-OCRv3_rec.yml", "rec_mobilenet_v1_enhance_svtr_ctc", {"scale": 0.5, **V3_ENDS}, ENHANCE_V3,
        several_heads(SVTR_V3, SAR), "SVTR", **LINES_48,
    ),
    recogniser(
        "PP-OCRv3/ch_PP-OCRv3_rec.yml", "rec_mobilenet_v1_enhance_svtr_ctc",
        {"scale": 0.5, **V3_ENDS, "pool_kernel": (2, 2)}, {**ENHANCE_V3, "last_pool_kernel_size": [2, 2]},
        several_heads(SVTR_V3, SAR), "SVTR_LCNet", **LINES_48,
    ),
    recogniser(
        "PP-OCRv4/ch_PP-OCRv4_rec_hgnet.yml", "rec_pphgnet_small_svtr_ctc", {}, {"name": "PPHGNet_small"},
        several_heads(SVTR_V4, NRTR), "SVTR_HGNet", train=SCALES["train"],
        evaluation=line_steps(48, GUIDED, eval_mode=True),
    ),
    recogniser(
        "PP-OCRv5/PP-OCRv5_mobile_rec.yml", "rec_pplcnet_v3_svtr_ctc", {"scale": 0.95},
        {"name": "PPLCNetV3", "scale": 0.95}, several_heads(SVTR_V4, NRTR), "SVTR_LCNet", **SCALES,
    ),
    recogniser(
        "PP-OCRv5/PP-OCRv5_server_rec.yml", "rec_pphgnet_v2_svtr_ctc", {}, {"name": "PPHGNetV2_B4", "text_rec": True},
        several_heads(SVTR_V4, NRTR), "SVTR_HGNet", **SCALES,
    ),
    recogniser(
        "PP-OCRv6/PP-OCRv6_tiny_rec.yml", "rec_pplcnet_v4_guide_ctc", {"mid_channels": 80},
        {"name": "PPLCNetV4", "use_rep": True, "stem_type": "simple", "config_name": "tiny", "stem_channels": 48},
        several_heads({"name": "reshape"}, NRTR, mid_channels=80, use_guide=True), "SVTR_LCNet", **SCALES,
    ),
    recogniser(
        "PP-OCRv6/PP-OCRv6_medium_rec.yml", "rec_pplcnet_v4_lightsvtr_ctc",
        {"channels": 192, "depth": 2, "local_kernel": 7}, {"name": "PPLCNetV4", "model_size": "medium"},
        several_heads({**LIGHT, "dims": 192, "mlp_ratio": 4.0}, NRTR), "SVTR_LCNet", **SCALES,
    ),
]  # fmt: skip


def angle_steps(*others: Section) -> list[Section]:
    """The steps of the classifier of lines."""
    resizing = {"ClsResizeImg": {"image_shape": [3, 48, 192]}}
    return [DECODE, {"ClsLabelEncode": None}, *others, resizing, {"KeepKeys": {"keep_keys": ["image", "label"]}}]


CLASSIFIER = Described(
    "cls/cls_mv3.yml",
    {
        "model_type": "cls",
        "algorithm": "CLS",
        "Transform": None,
        "Backbone": {"name": "MobileNetV3", "scale": 0.35, "model_name": "small"},
        "Neck": None,
        "Head": {"name": "ClsHead", "class_dim": 2},
    },
    "cls_mobilenet_v3",
    {"scale": 0.35, "strides": (2, 2, 2, 2), "classes": 2},
    angle_steps({"BaseDataAugmentation": None}, {"RandAugment": None}),
    angle_steps(),
    {"name": "ClsPostProcess"},
    {"label_list": ["0", "180"]},
)

ALL = [*DETECTORS, *RECOGNISERS, CLASSIFIER]
