"""What both panels and both logics do alike: life cycle, folder and report, a fit that a script may wait for."""

from pathlib import Path

import qt


class Panel:
    """Before the widget's other bases. The widget has `logic`, `ui`, `_parameterNode` and `setParameterNode`."""

    def cleanup(self):
        self.logic.run.close()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self):
        self.initializeParameterNode()

    def exit(self):
        self.setParameterNode(None)

    def onSceneStartClose(self, caller=None, event=None):
        self.logic.run.close()  # its nodes are about to go
        self.setParameterNode(None)

    def onSceneEndClose(self, caller=None, event=None):
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self):
        self.setParameterNode(self.logic.getParameterNode())

    def chooseFolder(self, title):
        path = qt.QFileDialog.getExistingDirectory(self.parent, title)
        if path:
            self._parameterNode.outputFolder = path

    def onReportButton(self, checked=False):
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.logic.report(self._parameterNode))))

    def onProgress(self, done, message):
        self.ui.progressBar.value = round(100 * done)
        self.ui.statusLabel.text = message


def perform(run, work, wait):
    """Start a run; with `wait`, RuntimeError with one sentence where it failed."""
    if not run.start(work, wait=wait) and wait:
        raise RuntimeError(run.message)


def report_in(folder, prefix):
    """The report of the last run in the output folder as it was typed; None where none was given or none is there."""
    if not folder.strip():
        return None
    path = Path(folder).expanduser() / f"{prefix}_report.html"
    return path if path.is_file() else None
