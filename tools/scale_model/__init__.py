"""The parts of tools/scale-model."""
