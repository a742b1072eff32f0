"""The parts of the electrophysiology module that need no Qt."""
