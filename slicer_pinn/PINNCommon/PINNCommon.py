"""What both modules share, as a module without a panel: its folder comes onto Slicer's Python path when it is loaded."""

from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModule


class PINNCommon(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "PINN Common"
        parent.categories = ["Developer Tools"]
        parent.dependencies = []
        parent.contributors = ["The pinn_engine team"]
        parent.helpText = _("Subprocess, installation and node helpers of the PINN modules.")
        parent.acknowledgementText = _("Apache-2.0; see the extension's page.")
        parent.hidden = True
