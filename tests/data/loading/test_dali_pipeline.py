import pytest
from nvidia.dali import Pipeline

from collagan_dist.data.loading.dali_pipeline import DaliPipeline


@pytest.mark.parametrize(("labels", "resize"), [(True, True), (True, False), (False, True)])
def test_the_graph_for_a_gpu_is_that_for_a_cpu_on_another_device(labels, resize):
    """It is built and serialised without a GPU: the same operators with the same arguments; pictures end on the GPU, label maps
    (which only resizing brings here) on the CPU.
    """
    found = []
    for device in ("cpu", "mixed"):
        decoder = DaliPipeline.__new__(DaliPipeline)
        decoder.canvas, decoder.labels, decoder.resize = 88, labels, resize
        pipe = Pipeline(batch_size=4, num_threads=1, device_id=None, prefetch_queue_depth=1)
        with pipe:
            outputs = decoder.graph(device)
            pipe.set_outputs(*outputs)
        assert (b"mixed" in pipe.serialize()) == (device == "mixed")
        operators = sorted((op._op._init_args for op in pipe._ops), key=str)
        found.append(([{k: str(v) for k, v in one.items()} for one in operators], [node.device for node in outputs]))
    (on_cpu, _), (on_gpu, devices) = found
    assert on_cpu == on_gpu and any(one.get("jpeg_fancy_upsampling") == "True" for one in on_gpu)
    assert devices == ["gpu"] + ["cpu"] * (labels and resize)
