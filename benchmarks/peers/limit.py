"""DeepXDE stopped after so many CPU seconds; needs DeepXDE's environment."""

import time

import deepxde as dde


class Limit(dde.callbacks.Callback):
    def __init__(self, seconds: float):
        super().__init__()
        self.end, self.steps = time.process_time() + seconds, 0

    def on_epoch_end(self):
        self.steps += 1
        if time.process_time() > self.end:
            self.model.stop_training = True
