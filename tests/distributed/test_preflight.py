from collagan_dist.distributed import preflight
from collagan_dist.distributed.preflight import RankFacts


def facts(rank: int, host: str, ranks_on_node: int = 1, gpu: str | None = None, **values: str) -> RankFacts:
    return RankFacts(rank, host, ranks_on_node, gpu, {"devices": "1", **values})


def test_ranks_that_agree_share_a_column():
    ranks = [facts(0, "n1", torch="2.12"), facts(1, "n2", torch="2.13"), facts(2, "n3", torch="2.13")]
    table = preflight._table(ranks, [rank.facts for rank in ranks], ["torch"])
    assert [line.split() for line in table.splitlines()] == [["n2,", "n3", "n1"], ["torch", "2.13", "2.12"]]


def test_a_table_fits_a_terminal():
    ranks = [facts(rank, f"n{rank}", **{f"key{k}": f"{rank}" + "x" * 50 for k in range(30)}) for rank in range(20)]
    lines = preflight._table(ranks, [rank.facts for rank in ranks], [*ranks[0].facts][1:]).splitlines()
    assert len(lines) == 23 and lines[-2:] == ["  ... and 10 more", "  ... and 14 more groups of ranks"]
    assert max(map(len, lines)) < 250 and "…" in lines[1]


def test_nodes_may_have_fewer_devices_if_they_run_fewer_ranks():
    large = [facts(rank, "n1", 2, devices="2") for rank in range(2)]
    assert preflight._devices_follow_ranks([*large, facts(2, "n2", 1, devices="1")])
    assert not preflight._devices_follow_ranks([*large, *(facts(rank, "n2", 2, devices="1") for rank in (2, 3))])


def test_two_ranks_on_one_gpu():
    assert preflight._shared_gpus([facts(0, "n1", gpu="a"), facts(1, "n1", gpu="b"), facts(2, "n2", gpu="a")]) is None
    text = preflight._shared_gpus([facts(0, "n1", 2, "a"), facts(1, "n1", 2, "a")])
    assert text is not None and text.startswith("ranks 0 and 1 on n1 share a GPU")


def test_advice_names_the_first_thing_to_mend():
    assert "configuration file" in preflight._advice({"configuration", "data set"})
    assert "copy its folder anew" in preflight._advice({"data set", "torch"})
    assert "same checkout" in preflight._advice({"collagan_dist"})
    assert "GPUs are missing" in preflight._advice({"devices", "configuration"})


def test_keys_of_a_node_do_not_count():
    tree = {"seed": 1, "data": {"shards": "/a", "threads": 2, "cache": {"folder": "/b"}, "window": 5}, "loss": {}}
    assert preflight._shared_settings(tree) == {"seed": "1", "data.window": "5", "loss": "{}"}
