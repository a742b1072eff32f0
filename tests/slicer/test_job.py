"""L1: subprocess, progress, cancel with children, failures in one sentence, installation; the engine replaced by small scripts."""

import os
import sys
import time
from pathlib import Path

import pytest

SPEAKS = "import sys,time\nsay=lambda t: (sys.stderr.write(t+chr(10)), sys.stderr.flush())\n"
PID = 'import os,json\nos.setsid()\nsay(json.dumps({"pid": os.getpid()}))\n'


@pytest.fixture
def common(shim, scene):
    import modules  # noqa: F401
    from PINNCommonLib import explain, install, job, run

    class Common:
        pass

    Common.explain, Common.install, Common.job, Common.run = explain, install, job, run
    return Common


def all_here(install, **changes):
    versions = {"torch": "2.9.0", "scipy": "1.14", "nibabel": "5.3", "matplotlib": "3.9", "numpy": "2.0.2"} | changes
    return install.InstallLogic(installed=versions.get, ask=lambda text: True, pip=lambda args: None, torch=lambda bounds: None)


def runner(common, script, **kwargs):
    return common.run.Run(all_here(common.install), lambda arguments: [sys.executable, "-c", SPEAKS + script, *arguments], **kwargs)


def test_progress_log_and_sentence(common):
    script = 'say(\'{"stage": "fit", "done": 0.5, "message": "fitting"}\')\nsay("a word")\n'
    script += 'sys.stderr.buffer.write(b"\\xff\\xfe\\n")\nprint("end")'
    run = runner(common, script)
    states, progress, log = [], [], []
    run.stateChanged.connect(lambda *a: states.append(a))
    run.progressed.connect(lambda *a: progress.append(a))
    run.logged.connect(log.append)
    folders = []
    work = common.run.Work(lambda folder: folders.append(folder) or ["x"], lambda folder: "3 maps")
    assert run.start(work, wait=True)
    assert [state for state, _ in states] == ["running", "done"]
    assert states[-1][1] == "3 maps"
    assert progress == [(pytest.approx(0.5), "fitting")]  # from 0.1, where reading ends, to 0.9, where writing begins
    assert log == ["a word", "\ufffd\ufffd", "end"]
    assert not folders[0].exists()


def test_cancel_kills_the_children_behind_a_launcher(common, tmp_path):
    """PythonSlicer is a launcher: what must stop is the engine, and what the engine started."""
    script = tmp_path / "engine.py"
    child = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    script.write_text(
        f"{SPEAKS}{PID}import subprocess\nc=subprocess.Popen([sys.executable,'-c',{child!r}])\nsay('child %d' % c.pid)\ntime.sleep(60)\n"
    )
    launcher = f"import subprocess,sys; sys.exit(subprocess.call([sys.executable, {str(script)!r}]))"
    run = common.run.Run(all_here(common.install), lambda arguments: [sys.executable, "-c", launcher])
    states, log = [], []
    run.stateChanged.connect(lambda state, message: states.append(state))
    run.logged.connect(log.append)
    started = common.run.Work(lambda folder: [], lambda folder: "")
    run._start_timer = lambda: None  # polled by hand here
    run.start(started)
    end = time.monotonic() + 30
    while not log and time.monotonic() < end:
        run.poll()
        time.sleep(0.02)
    child = int(log[0].split()[1])
    begin = time.monotonic()
    run.cancel()
    run.close()
    assert time.monotonic() - begin < 10
    assert states == ["running", "cancelling", "idle"]
    while alive(child) and time.monotonic() < end:
        time.sleep(0.02)
    assert not alive(child)


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_an_engine_that_does_not_listen_is_killed(common, monkeypatch):
    monkeypatch.setattr(common.job, "GRACE", 0.2)
    run = runner(common, PID + "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsay('deaf')\ntime.sleep(60)")
    run._start_timer = lambda: None
    log = []
    run.logged.connect(log.append)
    run.start(common.run.Work(lambda folder: [], lambda folder: ""))
    while not log:
        run.poll()
        time.sleep(0.02)
    run.close()
    assert run.state == "idle"
    assert run.message == "Cancelled."


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ('say("error: a.nii: no M0, found none, give --m0"); sys.exit(2)', "a.nii: no M0, found none, give --m0"),
        ("import no_such_thing", "The Python package no_such_thing is not installed."),
        ('say("x was compiled using NumPy 1.x"); sys.exit(1)', "built for another numpy"),
        ('say("last words"); sys.exit(1)', "ended with code 1: last words"),
        ("import os; os.kill(os.getpid(), 9)", "stopped from outside (signal 9)"),
    ],
)
def test_failures_are_one_sentence_and_keep_the_log(common, script, sentence):
    run = runner(common, script)
    log = []
    run.logged.connect(log.append)
    assert not run.start(common.run.Work(lambda folder: [], lambda folder: ""), wait=True)
    assert run.state == "failed"
    assert sentence in run.message
    kept = Path(log[-1].rsplit(" ", 1)[1])
    assert (kept / "log.txt").is_file()


def test_out_of_memory_is_tried_again_on_the_cpu(common):
    script = 'if "cuda" in sys.argv: say("torch.OutOfMemoryError: CUDA out of memory"); sys.exit(1)\nsay(" ".join(sys.argv))'
    run = runner(common, script)
    log = []
    run.logged.connect(log.append)
    assert run.start(common.run.Work(lambda folder: [], lambda folder: "done", device="cuda"), wait=True)
    assert log[1] == "The device ran out of memory. Trying again on the CPU."
    assert "--device cpu" in log[2]
    run = runner(common, 'say("CUDA out of memory"); sys.exit(1)')
    assert not run.start(common.run.Work(lambda folder: [], lambda folder: "", device="cpu"), wait=True)  # not for ever
    assert "ran out of memory" in run.message


def test_a_command_that_cannot_start_is_told(common):
    run = common.run.Run(all_here(common.install), lambda arguments: ["/no/such/python"])
    assert not run.start(common.run.Work(lambda folder: [], lambda folder: ""), wait=True)
    assert run.state == "failed"
    assert "/no/such/python" in run.message


def test_problem_while_preparing_or_collecting(common):
    def problem(folder):
        raise common.explain.Problem("two sizes")

    run = runner(common, "pass")
    assert not run.start(common.run.Work(problem, lambda folder: ""), wait=True)
    assert (run.state, run.message) == ("failed", "two sizes")
    assert not run.start(common.run.Work(lambda folder: [], problem), wait=True)
    assert (run.state, run.message) == ("failed", "two sizes")
    assert run.start(common.run.Work(lambda folder: [], lambda folder: "fine"), wait=True)


def test_only_what_is_missing_is_installed(common, monkeypatch):
    monkeypatch.delenv("PINN_ENGINE_PYTHON", raising=False)
    have = {"numpy": "2.4.6", "scipy": "1.14", "SimpleITK": "2.4"}
    asked, torch, pip = [], [], []

    def install_torch(bounds):
        torch.append(bounds)
        have["torch"] = "2.9.1+cu128"

    def install(arguments):
        held = Path(arguments[arguments.index("--constraint") + 1]).read_text("utf-8").split()
        pip.append(([word for word in arguments if ">=" in word], held))
        have.update(nibabel="5.3.2", matplotlib="3.10.0")

    logic = common.install.InstallLogic(installed=have.get, ask=lambda text: asked.append(text) or True, pip=install, torch=install_torch)
    assert [one.name for one in logic.missing()] == ["torch", "nibabel", "matplotlib"]
    logic.install()
    assert "torch>=2.8,<2.14, nibabel>=5.2, matplotlib>=3.8" in asked[0]
    assert torch == [">=2.8,<2.14"]
    assert pip == [(["nibabel>=5.2", "matplotlib>=3.8"], ["numpy==2.4.6", "SimpleITK==2.4"])]
    logic.install()
    assert len(asked) == len(pip) == len(torch) == 1  # nothing is left to do
    have["torch"] = "2.5.1"
    assert "torch>=2.8" in logic.report()
    with pytest.raises(common.install.NotInstalled, match=r"PyTorch 2\.5\.1 is installed, torch>=2\.8,<2\.14 is needed: uninstall"):
        logic.install()
    assert len(torch) == 1
    monkeypatch.setenv("PINN_ENGINE_PYTHON", sys.executable)
    assert logic.missing() == []


def test_declined_or_broken_installation_can_be_repeated(common, monkeypatch):
    monkeypatch.delenv("PINN_ENGINE_PYTHON", raising=False)
    have = {"torch": "2.9", "scipy": "1.14", "nibabel": "5.3"}
    answers = [False, True, True]

    def pip(arguments):
        if len(answers) == 1:
            raise common.install.NotInstalled("pip failed (no network)")
        have["matplotlib"] = "3.9"

    install = common.install.InstallLogic(have.get, lambda text: answers.pop(0), pip, lambda bounds: None)
    run = common.run.Run(install, lambda arguments: [sys.executable, "-c", ""])
    states = []
    run.stateChanged.connect(lambda state, message: states.append(state))
    work = common.run.Work(lambda folder: [], lambda folder: "done")
    assert not run.start(work, wait=True)
    assert "Press Apply again" in run.message
    assert not run.start(work, wait=True)
    assert run.message == "pip failed (no network)"
    install.pip = lambda arguments: have.update(matplotlib="3.9")
    assert run.start(work, wait=True)
    assert states == ["installing", "failed"] * 2 + ["installing", "running", "done"]


def test_the_pytorch_extension_is_asked_for_by_name(common, monkeypatch):
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    with pytest.raises(common.install.NotInstalled, match="Install the PyTorch extension"):
        common.install._torch(">=2.8")


def test_versions(common):
    need = common.install.Requirement("torch", ">=2.8,<2.14")
    assert [need.met_by(v) for v in (None, "2.7.1", "2.8.0+cpu", "2.13.9", "2.14.0", "3.0")] == [False, False, True, True, False, False]
