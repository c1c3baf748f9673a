"""`pytest -p tests.virtual.plugin`: tests in this process find the virtual CUDA device."""

from tests.virtual import device

device.torch.set_num_threads(1)
device.install()
