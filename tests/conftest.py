"""What all tests share: no network, no threads that fight over two cores, Ctrl-C as in a terminal."""

import os
import signal

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # which whoever starts the tests in the background ignores
