"""The large libraries of a node, imported in one go: a process that Flower starts for one message waits for them.

A third of their import time would go into collecting garbage among objects that all stay.

Both apps import this before anything of their own. A simulation imports them in two threads, and `transformers` puts
another module in its own place while it is imported: a thread that waited for the first one finds nothing in it.
"""

import gc

gc.disable()

import pyarrow  # noqa: E402, F401
import torch  # noqa: E402, F401
import transformers.modeling_utils  # noqa: E402, F401

gc.freeze()
gc.enable()
