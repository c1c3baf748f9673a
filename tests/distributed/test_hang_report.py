import json

from collagan_dist.distributed import hang_report
from collagan_dist.distributed.hang_report import HangVerdict, Heartbeat, Observer
from collagan_dist.distributed.rank_status import RankStatus

NEVER = float("inf")


def heartbeat(rank: int, waits: str | None) -> Heartbeat:
    return Heartbeat(rank, f"n{rank}", 100 + rank, 5, 7, waits)


def verdict(waits: dict[int, str | None], silent: dict[int, float]) -> HangVerdict:
    """By rank 1, which waits in a gradient at step 7 with a timeout of 8 s."""
    observer = Observer(1, RankStatus(step=7), 8.0)
    with observer.status.waiting_in("the gradient"):
        return hang_report.hang_verdict(observer, {rank: heartbeat(rank, what) for rank, what in waits.items()}, silent)


def test_a_silent_rank():
    found = verdict({0: None, 1: "the gradient"}, {0: 6.4, 1: 0.0})
    assert found.text.startswith("rank 0 (host n0, pid 100) has not come to the gradient of step 7 in 0 s")
    assert "(runtime.timeout is 8); it has not answered for 6 s or more: its process is stopped" in found.text
    assert (found.speaker, found.answering, found.working, found.silent) == (1, [1], [], [0])


def test_a_rank_that_never_answered_has_no_name():
    found = verdict({1: "the gradient"}, {0: NEVER, 1: 0.0})
    assert found.text.startswith("rank 0 has not come") and "it has never answered" in found.text


def test_a_rank_that_is_stuck_in_its_own_work():
    """It answers, so it is asked for its stack; the lowest rank that answers speaks."""
    found = verdict({0: None, 1: "the gradient", 2: "the gradient"}, {0: 1.0, 1: 0.0, 2: 3.9})
    assert "busy or stuck in its own work" in found.text and len(found.text.splitlines()) == 1
    assert (found.speaker, found.answering, found.working, found.silent) == (0, [0, 1, 2], [0], [])


def test_all_ranks_wait():
    found = verdict({0: "gathering", 1: "the gradient"}, {0: 1.0, 1: 0.0})
    assert "in different collectives (rank 0 on n0: gathering in step 7; rank 1 on n1" in found.text
    assert found.working == []


def test_other_verdicts_and_their_json():
    observer = Observer(1, RankStatus(), 8.0)
    ended = hang_report.ended_verdict(observer, "rank 0 on n0 ended: ValueError: no")
    assert ended.text == "rank 0 on n0 ended: ValueError: no; the others wait for it in a collective of the start"
    lost = hang_report.store_lost_verdict(observer, heartbeat(0, None), "n0:29500", 9.0)
    assert lost.text.startswith("rank 0 (host n0, pid 100), which hosts the store of the ranks at n0:29500")
    assert lost.answering == lost.silent == [] and HangVerdict(**json.loads(lost.to_json())) == lost


def test_stacks_are_kept_in_the_logs(tmp_path):
    status = RankStatus(step=7, log_dir=tmp_path / "logs")
    with status.waiting_in("the gradient"):
        frames = hang_report.dump_stacks(3, status, 2.0)
    assert "in dump_stacks" in frames
    text = (tmp_path / "logs/stacks-rank-3.txt").read_text()
    assert ", step 7, " in text and "waits in the gradient for 2 s" in text and "test_hang_report.py" in text
    assert (tmp_path / "logs/collectives-rank-3.json").exists()
