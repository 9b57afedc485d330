"""The large libraries of a node, imported in one go: a process that Flower starts for one message waits for them.

A third of their import time would go into collecting garbage among objects that all stay.
"""

import gc

gc.disable()

import pyarrow  # noqa: E402, F401
import torch  # noqa: E402, F401
import transformers.modeling_utils  # noqa: E402, F401

gc.freeze()
gc.enable()
