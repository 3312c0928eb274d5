import os
import signal
import sys

import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

from s4eca.stopping import StopSignals, ending_by_signals, requeue


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_signal_waits_while_somebody_looks(sent, status):
    before = signal.getsignal(sent)
    with StopSignals() as signals:
        signals.deferring = True
        os.kill(os.getpid(), sent)
        os.kill(os.getpid(), signal.SIGTERM)  # a second one changes nothing
        assert (signals.asked, signals.status, signals.name) == (sent, status, sent.name)
        signals.deferring = False
        with pytest.raises(SIGTERMException):
            os.kill(os.getpid(), sent)
    assert signal.getsignal(sent) is before


def test_ctrl_c_waits_once():
    with StopSignals() as signals:
        signals.deferring = True
        os.kill(os.getpid(), signal.SIGINT)
        assert (signals.asked, signals.status, signals.name) == (signal.SIGINT, 130, "Ctrl-C")
        os.kill(os.getpid(), signal.SIGINT)  # the same one, as `timeout` sends it to a command and its group
        signals._since -= 2  # seconds, after which somebody presses it again
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_what_comes_while_a_run_ends_is_no_second_end(sent):
    with StopSignals() as signals:
        with pytest.raises((SIGTERMException, KeyboardInterrupt)):
            os.kill(os.getpid(), sent)
        os.kill(os.getpid(), sent)
        os.kill(os.getpid(), signal.SIGTERM)
    assert signals.asked == sent


@pytest.mark.parametrize(
    ("sent", "status", "name"),
    [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGUSR1, 138, "SIGUSR1"), (signal.SIGINT, 130, "Ctrl-C")],
)
def test_a_command_ends_by_a_signal_with_its_status(capsys, sent, status, name):
    with pytest.raises(SystemExit) as ended, ending_by_signals():
        try:
            os.kill(os.getpid(), sent)
        except KeyboardInterrupt:
            sys.exit(1)  # as Lightning and typer do
    assert ended.value.code == status
    assert capsys.readouterr().err == f"stopped by {name}\n"


def test_a_command_that_ends_by_itself_keeps_its_status(capsys):
    with pytest.raises(SystemExit) as ended, ending_by_signals():
        sys.exit(2)
    assert ended.value.code == 2
    assert capsys.readouterr().err == ""


def test_ctrl_c_that_is_ignored_stays_so():
    """A shell script starts `python train.py &` so, and the other processes of a terminal are interrupted alone."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            signals.install()
            os.kill(os.getpid(), signal.SIGINT)
            assert signals.asked is None
            assert signal.getsignal(signal.SIGTERM) == signals._ask
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def interrupted():
    """Does what Lightning does with Ctrl-C."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


def test_what_is_a_stop():
    signals = StopSignals()
    assert signals.is_stop(SIGTERMException())
    assert not signals.is_stop(SystemExit(2))
    assert signals.status == 143
    with pytest.raises(SystemExit) as stop:
        interrupted()
    assert signals.is_stop(stop.value)
    assert (signals.status, signals.name) == (130, "Ctrl-C")


@pytest.mark.parametrize(
    ("job", "asked_for"),
    [
        ({"SLURM_JOB_ID": "41"}, "requeue 41"),
        ({"SLURM_JOB_ID": "43", "SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "3"}, "requeue 40_3"),
    ],
)
def test_a_slurm_job_is_put_back(tmp_path, monkeypatch, job, asked_for):
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    assert requeue() == f"job {asked_for.split()[1]} is back in the queue"
    assert (tmp_path / "asked").read_text().strip() == asked_for
    scontrol.write_text("#!/bin/sh\necho no such job >&2; exit 1\n")
    assert "could not be requeued (no such job)" in requeue()
    scontrol.unlink()
    assert "could not be requeued (No such file or directory)" in requeue()


def test_elsewhere_nothing_is_requeued(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert "no SLURM job" in requeue()
