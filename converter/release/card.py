"""The model card of a published model: what it is, how to load it, and what it rests on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from importlib import resources
from string import Template
from typing import Any

import yaml

from paddle2torch.architectures.records import BoxPostprocessing
from paddle2torch.converter.conversion.convert import Conversion
from paddle2torch.converter.mapping.labels import NO_LABELS
from paddle2torch.converter.parity.result import ParityResult
from paddle2torch.converter.support.terminal import clean
from paddle2torch.converter.tasks import find_task
from paddle2torch.converter.zoo.catalog import Model

LICENCE = "apache-2.0"
LIBRARY = "paddle2torch"

LANGUAGES = {
    "Arabic": "ar",
    "Arabic script": "und-Arab",
    "Balochi": "bal",
    "Belarusian": "be",
    "Bhojpuri": "bho",
    "Bihari": "bh",
    "Bulgarian": "bg",
    "Chinese": "zh",
    "Cyrillic script": "und-Cyrl",
    "Devanagari script": "und-Deva",
    "English": "en",
    "French": "fr",
    "German": "de",
    "Greek": "el",
    "Haryanvi": "bgc",
    "Hindi": "hi",
    "Italian": "it",
    "Japanese": "ja",
    "Kannada": "kn",
    "Kazakh": "kk",
    "Konkani": "kok",
    "Korean": "ko",
    "Kurdish": "ku",
    "Latin": "la",
    "Latin script": "und-Latn",
    "Maithili": "mai",
    "Marathi": "mr",
    "Mongolian": "mn",
    "Nepali": "ne",
    "Newari": "new",
    "Occitan": "oc",
    "Pashto": "ps",
    "Persian": "fa",
    "Polish": "pl",
    "Portuguese": "pt",
    "Romanian": "ro",
    "Russian": "ru",
    "Sanskrit": "sa",
    "Serbian (Cyrillic)": "sr-Cyrl",
    "Serbian (Latin)": "sr-Latn",
    "Sindhi": "sd",
    "Spanish": "es",
    "Tamil": "ta",
    "Tatar": "tt",
    "Telugu": "te",
    "Thai": "th",
    "Traditional Chinese": "zh-Hant",
    "Turkish": "tr",
    "Ukrainian": "uk",
    "Urdu": "ur",
    "Uyghur": "ug",
    "Vietnamese": "vi",
    "multilingual": "und",
}
"""The zoo's languages as BCP 47 tags; `und` (undetermined) where there are several."""

BASE_MODELS = {
    "7e9518c6ab706fe87842a8de1c098f990e67f9212b67c9ef8bc4bca6dc17b91a": "PaddlePaddle/PP-OCRv3_mobile_det",
}
"""sha256 of an `inference.pdiparams` → the Hub's repository that has this very file."""

SIZES = {
    "multiple": "the longer side at most {limit_side} pixels, both sides multiples of {multiple}",
    "height": "{height} high, the ratio kept; a batch is as wide as its widest line, with zeros to the right of the "
    "others, and at least {width}",
    "height_padded": "{height} high, the ratio kept, {width} wide with zeros to the right",
    "stretch": "{height} high and {width} wide, the ratio not kept",
    "crop": "the shorter side {short_side} pixels, of that the middle, {height} high and {width} wide",
    "multiple_at_least": "the shorter side at least {short_side} pixels and then the longer at most {long_side}, both "
    "sides multiples of {multiple}",
    "multiple_long": "the longer side {long_side} pixels, both sides multiples of {multiple}",
    "multiple_long_up": "the longer side {long_side} pixels, both sides rounded up to multiples of {multiple}",
    "multiple_height": "{height} high, the ratio kept, the width rounded up to a multiple of {multiple}",
}
BOXES = """To boxes: regions above {thresh:g}, with a mean of at least {box_thresh:g}, each grown by its area times
{unclip_ratio:g} over its perimeter (`postprocessing` in the metadata)."""
RIGHT_TO_LEFT = """Read so, the characters come as they stand in the image, from left to right. The script is read from
right to left: turn them round, but for runs of Latin letters and digits."""


_MARKDOWN = re.compile(r"[\\`*\[\]<>|!#&]|(?<=:)//")
"""What makes images, links, code and HTML of a name."""


def card(conversion: Conversion, result: ParityResult, files: Mapping[str, str], organisation: str | None) -> str:
    """The text of `README.md`.

    Args:
        conversion: of a model of the zoo.
        result: its parity.
        files: what the card speaks of: "weights", "state" (the `.pth`) and "image" → file name.
        organisation: whose the repository on the Hub is; None where the folder stays on disk.
    """
    model = conversion.source.model
    assert model is not None
    repository = f"{organisation}/{model.name}" if organisation else None
    template = Template((resources.files(__package__) / "card.md").read_text(encoding="utf-8"))
    return template.substitute(
        metadata=yaml.safe_dump(metadata(conversion, model), sort_keys=False, allow_unicode=True),
        name=model.name,
        summary=_summary(conversion, model),
        place=f"hf:{repository}" if repository else model.name,
        example=_example_shape(conversion),
        with_torch=_with_torch(repository, model.name, files["state"]),
        with_safetensors=_with_safetensors(repository, model.name, files["weights"]),
        input=_input(conversion),
        output=_output(conversion, model),
        parity=_parity(result, files["weights"]),
        image=files["image"],
        origin=_origin(conversion),
    )


def metadata(conversion: Conversion, model: Model) -> dict[str, Any]:
    """The card's metadata, as the Hub wants it."""
    tags = [LANGUAGES[language] for language in model.languages]
    base = BASE_MODELS.get(_parameters_sha256(conversion) or "")
    subtags = dict.fromkeys(tag.partition("-")[0] for tag in tags)
    regional = [tag for tag in tags if "-" in tag]
    return {
        "license": LICENCE,
        "language": ["multilingual" if subtag == "und" else subtag for subtag in subtags],
        **({"language_bcp47": regional} if regional else {}),
        "library_name": LIBRARY,
        "pipeline_tag": find_task(model.task).pipeline,
        **({"base_model": base} if base else {}),
        "tags": ["OCR", "PaddleOCR", model.generation, find_task(model.task).tag, "pytorch"],
    }


def _parameters_sha256(conversion: Conversion) -> str | None:
    parameters = conversion.source.files.parameters
    return hashlib.sha256(parameters.data).hexdigest() if parameters else None


def _summary(conversion: Conversion, model: Model) -> str:
    entry = conversion.network
    settled = ", ".join(f"`{key} = {value}`" for key, value in conversion.network.parameters.items())
    origin = "" if model.generation == "embedded" else f" PaddleOCR's {model.generation} weights, converted to PyTorch."
    return (
        f"{model.description}.{origin}\n\n"
        f"{entry.summary[0].upper()}{entry.summary[1:]}. The package knows it as `{entry.name}` with {settled};"
        f" the design is that of {entry.design}."
    )


def _example_shape(conversion: Conversion) -> str:
    size = conversion.network.preprocessing.size
    side = (size.multiple or 0) * 10
    return ", ".join(map(str, (1, 3, size.height or side, size.width or side)))


def _with_torch(repository: str | None, name: str, file: str) -> str:
    if repository is None:
        return f'import torch\n\nstate = torch.load("{name}/{file}", weights_only=True)'
    url = f"https://huggingface.co/{repository}/resolve/main/{file}"
    return (
        "import torch\n\n"
        f'url = "{url}"\n'
        "state = torch.hub.load_state_dict_from_url(url, check_hash=True, weights_only=True)"
    )


def _with_safetensors(repository: str | None, name: str, file: str) -> str:
    if repository is None:
        return f'from safetensors.torch import load_file\n\nstate = load_file("{name}/{file}")'
    return (
        "from huggingface_hub import hf_hub_download\n"
        "from safetensors.torch import load_file\n\n"
        f'state = load_file(hf_hub_download("{repository}", "{file}"))'
    )


def _input(conversion: Conversion) -> str:
    record = conversion.network.preprocessing
    mean, std = list(record.mean), list(record.std)
    return "\n".join(
        (
            "float32 `(N, 3, H, W)`:",
            "",
            f"- size: {SIZES[record.size.mode].format(**record.size.to_json())}",
            f"- channels: {record.channel_order}",
            f"- values: (pixel × {record.scale:.10g} − mean) / std, with mean {mean} and std {std}",
        )
    )


def _output(conversion: Conversion, model: Model) -> str:
    task, labels = find_task(model.task), conversion.labels
    missing = None
    if labels is not None and labels.labels is None:
        missing = labels.note.removeprefix(NO_LABELS).partition(";")[0]
    lines = (
        task.describe_output(conversion.network.parameters),
        task.describe_labels(model.name, missing),
        _postprocessing(conversion),
    )
    return "\n\n".join(filter(None, lines))


def _postprocessing(conversion: Conversion) -> str | None:
    record = conversion.postprocessing
    if isinstance(record, BoxPostprocessing):
        return BOXES.format(**record.to_json())
    return RIGHT_TO_LEFT if record is not None and record.direction == "right_to_left" else None


def _parity(result: ParityResult, weights: str) -> str:
    worst = result.worst[0]
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    figures = {
        "Layers compared": f"{len(result.worst)}, each on {len(result.cases)} batches",
        "Largest error of a layer, double precision": f"{worst.difference.max_error:.1e} at `{worst.layer.module}`",
        "Tolerance": f"{result.tolerance:g}",
        "Largest error of a layer, single precision": f"{max(row.single.max_error for row in result.worst):.1e}",
        "Answers that agree": "{} of {}".format(*_answers(result)),
        "Versions": versions,
    }
    return (
        f"Paddle ran its own program and PyTorch the `{weights}` of this folder on the same images; every layer,\n"
        "the output and the answer were compared. An error is max|a − b| / max|a| against Paddle's value a.\n\n"
        "| | |\n| --- | --- |\n" + "\n".join(f"| {what} | {value} |" for what, value in figures.items())
    )


def _answers(result: ParityResult) -> tuple[int, int]:
    answers = [answer.agrees for case in result.cases for answer in case.answers]
    return sum(answers), len(answers)


def _plain(text: str) -> str:
    """Words with names of others among them, as Markdown that shows them and does no more."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", clean(text))


def _origin(conversion: Conversion) -> str:
    source = conversion.source
    facts = [
        f"- file: {source.url if source.url and '://' in source.url else _plain(source.path.name)}",
        f"- sha256: `{source.sha256}`",
        *(f"- {_plain(note)}" for note in conversion.notes),
        "- licence: Apache-2.0",
    ]
    return "\n".join(facts)
