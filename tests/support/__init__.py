"""What several tests use: inputs, servers, programs to run apart."""
