"""The parts of the perfusion module that need no Qt."""
