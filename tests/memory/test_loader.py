from __future__ import annotations

import torch

from prefixmux_server.memory.loader import loader_threads


def test_a_loading_thread_computes_alone_and_leaves_the_others_their_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with loader_threads(1) as threads:
            assert threads.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
