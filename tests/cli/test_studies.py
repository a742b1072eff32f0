"""`pinn-engine bids` and `cohort`: every flag changes what is done; the words at the end; exit codes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from runs import run, write_scan, written
from test_flags import flags

WAY = {"--nprocs", "--shard", "--retry-failed", "--work-dir", "--cluster", "--scheduler", "--slurm", "--dry-run"}
LABELS = {"--participant-label", "--participant_label", "--session-label", "--session_label", "--version"}
QUICK = ("--method", "nlls")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Subjects 01, 02 (in session a) and 03, whose sidecar lacks the delays."""
    home = tmp_path_factory.mktemp("bids")
    for label, session in (("01", ""), ("02", "a"), ("03", "")):
        made = tmp_path_factory.mktemp("made")
        write_scan(made)
        name = f"sub-{label}" + (f"_ses-{session}" if session else "")
        perf = home / f"sub-{label}" / (f"ses-{session}" if session else ".") / "perf"
        perf.mkdir(parents=True)
        for file in (made / "sub-01" / "perf").iterdir():
            shutil.copy(file, perf / file.name.replace("sub-01", name))
    sidecar = home / "sub-03" / "perf" / "sub-03_asl.json"
    fields = json.loads(sidecar.read_text())
    del fields["PostLabelingDelay"]
    sidecar.write_text(json.dumps(fields))
    return home


def test_every_flag_has_a_test():
    assert flags("bids") == (flags("asl") - {"--out"}) | WAY | LABELS
    assert flags("cohort") == WAY | {"--task"}


def test_participant_then_group(dataset, tmp_path, capsys):
    assert run("bids", dataset, tmp_path, "participant", *QUICK) == 3
    out, err = capsys.readouterr()
    assert out.startswith("2 of 3 done, 1 failed")
    assert err.count("failed: sub-03  ") == 1
    assert "PostLabelingDelay" in err
    files = written(tmp_path)
    assert {"dataset_description.json", ".bidsignore", "sub-01/perf/sub-01_cbf.nii.gz"} <= set(files)
    assert "sub-02/ses-a/perf/sub-02_ses-a_report.html" in files
    assert not (tmp_path / "sub-03").exists()  # no empty folder either
    about = json.loads(files["dataset_description.json"])
    assert about["GeneratedBy"][0]["Name"] == "pinn_engine"
    assert about["SourceDatasets"] == [{"URL": dataset.as_uri()}]
    assert len([*(tmp_path / "logs" / "subjects" / "sub-01").iterdir()]) == 1

    assert run("bids", dataset, tmp_path, "participant", *QUICK) == 3
    assert "2 of 3 done (2 before), 1 failed" in (said := capsys.readouterr().out)
    assert "--retry-failed does" in said

    assert run("bids", dataset, tmp_path, "group") == 0
    table = (tmp_path / "group_desc-qualitycontrol_cbf.tsv").read_text().splitlines()
    assert [line.split("\t")[:2] for line in table] == [["id", "state"], ["sub-01", "done"], ["sub-02_ses-a", "done"], ["sub-03", "failed"]]
    page = (tmp_path / "index.html").read_text()
    assert 'href="sub-02/ses-a/perf/sub-02_ses-a_report.html"' in page
    assert "PostLabelingDelay" in page
    assert f"<h1>{dataset.name}</h1>" in page
    assert 'href="group_desc-qualitycontrol_cbf.tsv"' in page
    assert str(dataset) not in page  # where the data lay is in the markers only
    assert str(dataset) not in table[-1]
    assert "pinn_engine" in (tmp_path / "logs" / "CITATION.md").read_text()


def test_what_calls_for_care_is_told(dataset, tmp_path, capsys):
    """Control and label exchanged in one subject: its maps are negative, and a study must say so as the single command does."""
    home = tmp_path / "bids"
    shutil.copytree(dataset / "sub-01", home / "sub-01")
    context = home / "sub-01" / "perf" / "sub-01_aslcontext.tsv"
    swapped = {"control": "label", "label": "control"}
    context.write_text("\n".join(swapped.get(line, line) for line in context.read_text().splitlines()) + "\n")
    for _ in range(2):  # a rerun fits nothing, and says it again
        assert run("bids", home, tmp_path / "out", "participant", *QUICK) == 0
        assert "caution: sub-01  The median perfusion is negative" in capsys.readouterr().out


def test_the_maps_are_those_of_the_single_command(dataset, tmp_path):
    scan = dataset / "sub-01" / "perf" / "sub-01_asl.nii.gz"
    assert run("asl", scan, "--out", tmp_path / "one", *QUICK) == 0
    assert run("bids", dataset, tmp_path / "all", "participant", "--participant-label", "01", *QUICK) == 0
    one = {name: content for name, content in written(tmp_path / "one").items() if name != "dataset_description.json"}
    assert written(tmp_path / "all" / "sub-01" / "perf") == one


FLAGS = {  # flag and values: the subjects that are fitted
    ("--participant-label", "sub-01", "02"): ["sub-01", "sub-02_ses-a"],
    ("--participant_label", "02"): ["sub-02_ses-a"],
    ("--session-label", "a"): ["sub-02_ses-a"],
    ("--session_label", "ses-a"): ["sub-02_ses-a"],
    ("--shard", "2/3"): ["sub-02_ses-a"],
    ("--dry-run",): [],
}


@pytest.mark.parametrize("flag", FLAGS)
def test_what_is_chosen(flag, dataset, tmp_path, capsys):
    assert run("bids", dataset, tmp_path / "out", "participant", *QUICK, *flag) == 0
    assert [path.stem for path in sorted((tmp_path / "out").glob("logs/jobs/*.json"))] == FLAGS[flag]
    if flag == ("--dry-run",):
        assert not (tmp_path / "out").exists()
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[:2] for line in lines[:3]] == [["sub-01", "new"], ["sub-02_ses-a", "new"], ["sub-03", "new"]]
        assert lines[3] == "3 job(s), 3 to do"


def test_retry_failed(dataset, tmp_path):
    call = ("bids", dataset, tmp_path, "participant", "--participant-label", "03", *QUICK)
    assert run(*call) == 3
    logs = tmp_path / "logs" / "subjects" / "sub-03"
    assert run(*call) == 3
    assert len([*logs.iterdir()]) == 1
    assert run(*call, "--retry-failed") == 3
    assert len([*logs.iterdir()]) == 2


def test_work_dir(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", "")
    call = ("bids", dataset, tmp_path / "out", "participant", "--participant-label", "01", "-w", tmp_path / "work", *QUICK)
    assert run(*call) == 0
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["sub-01.lock"]
    assert [path.name for path in (tmp_path / "out" / "logs" / "jobs").iterdir()] == ["sub-01.json"]


def test_an_option_of_the_fit_reaches_every_subject(dataset, tmp_path):
    call = (
        "bids",
        dataset,
        tmp_path,
        "participant",
        "--participant-label",
        "03",
        "--plds",
        "0.3,0.3,0.6,0.6,1.1,1.1,1.6,1.6,2.1,2.1,2.6,2.6",
    )
    assert run(*call, *QUICK) == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--shard", "4/3"), "--shard: is no part of a whole, found 4/3"),
        (("--nprocs", "0"), "--nprocs: must be at least 1"),
        (("--participant-label", "7"), "--participant-label is not in the dataset, found 7; there are: 01, 02, 03"),
        (("--scheduler", "tcp://x:1"), "--scheduler: is for --cluster dask"),
        (("--slurm", "queue"), "--slurm: is no list of name=value"),
        (("--threads", "0"), "--threads: must be at least 1"),
    ],
)
def test_wrong_calls(words, line, dataset, tmp_path, capsys):
    assert run("bids", dataset, tmp_path / "out", "participant", *words) == 2
    err = capsys.readouterr().err
    assert line in err
    assert err.count("\n") == 1


def test_others_datasets_are_left_as_they_are(dataset, tmp_path, capsys):
    """The study's folder is not the dataset; and a description that another program wrote stays."""
    assert run("bids", dataset, dataset, "participant", "--dry-run") == 2
    assert "the study's folder is the dataset itself" in capsys.readouterr().err
    about = tmp_path / "dataset_description.json"
    about.write_text('{"Name": "raw"}')
    assert run("bids", dataset, tmp_path, "participant", "--participant-label", "01", *QUICK) == 0
    assert run("asl", dataset / "sub-01" / "perf" / "sub-01_asl.nii.gz", "--out", tmp_path, *QUICK) == 0
    assert about.read_text() == '{"Name": "raw"}'
    assert not (tmp_path / ".bidsignore").exists()


def test_group_before_participant(tmp_path, capsys):
    assert run("bids", tmp_path, tmp_path / "none", "group") == 2
    assert "run the participant level first" in capsys.readouterr().err
    assert run("bids", tmp_path, tmp_path, "group") == 2
    assert "no subject is done" in capsys.readouterr().err


def manifest(folder: Path, text: str) -> Path:
    path = folder / "study.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_cohort(dataset, tmp_path, capsys):
    rows = f"id,input,m0,spatial\nÄ 1,{dataset}/sub-01/perf/sub-01_asl.nii.gz,1000,\nb,{dataset}/sub-01/perf/sub-01_asl.nii.gz,,false\n"
    table = manifest(tmp_path, rows)
    assert run("cohort", table, tmp_path / "out", "--task", "asl", "--method", "nlls", "--m0", "2000") == 0
    out = capsys.readouterr().out
    assert "2 of 2 done" in out
    assert "index.html" in out
    m0 = {id: json.loads((tmp_path / "out" / id / "sub-01_cbf.json").read_text())["Constants"]["m0"]["Value"] for id in ("Ä 1", "b")}
    assert m0 == {"Ä 1": 1000, "b": 2000}  # a row's own value wins over the call's
    assert run("cohort", table, tmp_path / "out", "--task", "asl", "--method", "nlls", "--m0", "2000", "--dry-run") == 0
    assert [line.split()[-2] for line in capsys.readouterr().out.splitlines()[:2]] == ["done", "done"]


@pytest.mark.parametrize(
    ("text", "words", "line"),
    [
        ("id,input\n1,x.nii", ("--task", "asl", "--nonsense"), "unrecognized arguments: --nonsense"),
        ("id,input\n1,x.nii", ("--task", "asl", "--alhpa", "0.8"), "unrecognized arguments: --alhpa 0.8 (did you mean --alpha?)"),
        ("id,input,plds\n1,x.nii,abc", ("--task", "asl"), "line 2: argument --plds: 'abc' is not a number"),
        ("id,input,spatial\n1,x.nii,perhaps", ("--task", "asl"), "spatial is neither true nor false"),
        ("id,input,pld\n1,x.nii,1", ("--task", "asl"), "has an unknown column, found pld; did you mean plds?"),
        ("id,input,threads\n1,x.nii,1", ("--task", "asl"), "has an unknown column, found threads"),
        ("id,input\n1,x.nii\n1,y.nii", ("--task", "asl"), "two rows have one identifier"),
        ("id,input\n1,x.vtk", ("--task", "kidney"), "invalid choice: 'kidney'"),
        ("id,input\n1,x.vtk", (), "required: --task"),
    ],
)
def test_wrong_manifests(text, words, line, tmp_path, capsys):
    assert run("cohort", manifest(tmp_path, text), tmp_path / "out", *words) == 2
    err = capsys.readouterr().err
    assert line in err
    assert "Traceback" not in err


def test_a_missing_scan_fails_alone(dataset, tmp_path, capsys):
    table = manifest(tmp_path, f"id,input\n1,none.nii\n2,{dataset}/sub-01/perf/sub-01_asl.nii.gz\n")
    assert run("cohort", table, tmp_path / "out", "--task", "asl", *QUICK) == 3
    assert "none.nii: cannot be read, found No such file" in capsys.readouterr().err


def test_hearts(tmp_path, capsys):
    """The heart's task reads its own options from the table."""
    table = manifest(tmp_path, "id,input,time-unit,noise\nh,none.vtk,ms,2\n")
    assert run("cohort", table, tmp_path / "out", "--task", "cardiac", "--dry-run") == 0
    assert run("cohort", table, tmp_path / "out", "--task", "cardiac") == 3
    assert "none.vtk" in capsys.readouterr().err


def test_the_slurm_job_is_what_sbatch_takes(dataset, tmp_path, capsys):
    pytest.importorskip("dask_jobqueue")
    words = (
        "--cluster",
        "slurm",
        "--slurm",
        "queue=short,account=lab,walltime=00:30:00,memory=4GB,cores=2,gpus=1",
        "--nprocs",
        "2",
        "--dry-run",
    )
    assert run("bids", dataset, tmp_path / "out", "participant", *words) == 0
    script = capsys.readouterr().out
    for line in (
        "#SBATCH -p short",
        "#SBATCH -A lab",
        "#SBATCH -t 00:30:00",
        "#SBATCH --mem=4G",
        "#SBATCH --cpus-per-task=2",
        "export OMP_NUM_THREADS=2",
        "--nthreads 1 ",  # one subject a job, with all its cores
        "--gres=gpu:1",
    ):
        assert line in script, line
    assert "distributed.cli.dask_worker" in script
    assert "export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON=\"{'MALLOC_TRIM_THRESHOLD_': None}\"" in script
    assert run("bids", dataset, tmp_path / "out", "participant", "--cluster", "slurm", "--slurm", "partition=x", "--dry-run") == 2
    assert "--slurm: has an unknown part, found partition" in capsys.readouterr().err


def test_dask_workers_keep_their_memory():
    """Dask tells malloc to give back all above 64 KiB; torch then maps every array anew, and a fit takes half as long again."""
    dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
    from pinn_engine.cohort.cluster import settings

    where = {"n_workers": 1, "dashboard_address": None, "host": "127.0.0.1"}
    with (
        dask.config.set(settings()),
        distributed.LocalCluster(**where) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert client.run(os.environ.get, "OMP_NUM_THREADS") == dict.fromkeys(client.scheduler_info()["workers"], "1")
        assert not any(client.run(os.environ.get, "MALLOC_TRIM_THRESHOLD_").values())


def test_dask_writes_what_one_process_writes(dataset, tmp_path, capfd):
    pytest.importorskip("distributed")
    assert run("bids", dataset, tmp_path / "a", "participant", *QUICK) == 3
    assert run("bids", dataset, tmp_path / "b", "participant", "--cluster", "dask", "--nprocs", "2", *QUICK) == 3
    assert written(tmp_path / "b") == written(tmp_path / "a")
    assert "distributed" not in capfd.readouterr().err


def test_a_given_scheduler(dataset, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=None) as cluster:
        words = ("--cluster", "dask", "--scheduler", cluster.scheduler_address, "--participant-label", "01")
        assert run("bids", dataset, tmp_path, "participant", *words, *QUICK) == 0
    assert (tmp_path / "sub-01" / "perf" / "sub-01_cbf.nii.gz").is_file()
