"""What mamba-ssm's autograd functions are decorated with, for code that imports it from there."""

from functools import partial

import torch

custom_fwd = partial(torch.amp.custom_fwd, device_type="cuda")
custom_bwd = partial(torch.amp.custom_bwd, device_type="cuda")
