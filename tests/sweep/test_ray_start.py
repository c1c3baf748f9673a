import pytest


def test_the_hook_leaves_out_the_client_server():
    pytest.importorskip("ray")
    from ray._private.parameter import RayParams

    from collagan_dist.sweep.ray_start import without_client_server

    params = RayParams(object_manager_port=7000)
    params.ray_client_server_port = 10001  # what `ray start` takes where grpcio is installed
    without_client_server(params, True)
    assert params.ray_client_server_port is None and params.object_manager_port == 7000
