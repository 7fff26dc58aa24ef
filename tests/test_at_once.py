from __future__ import annotations

import sys
import threading
import time
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch_threads
from threadpoolctl import threadpool_info

from icsr_cli import threads
from icsr_cli.recipes.steps import choose_engine
from icsr_cli.threads import at_once


@pytest.mark.parametrize(("asked", "threads_"), [("3", 3), ("0", 1), ("²", 5), ("", 5)])
def test_threads_that_are_asked_for(monkeypatch, asked, threads_):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(threads, "usable_cpus", lambda: 5)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert threads.thread_count() == threads_


def test_at_once_gives_results_in_order_whoever_ends_first():
    behind = threading.Event()

    def work(number):
        if number == 0:
            behind.wait(0.2)  # the others may be first, where there are several threads
        behind.set()
        return number * number

    assert at_once(work, np.arange(7)) == [0, 1, 4, 9, 16, 25, 36]
    assert at_once(work, []) == []


def test_at_once_runs_few_at_a_time_and_each_multiplies_on_one_thread(monkeypatch):
    monkeypatch.setattr(threads, "thread_count", lambda: 64)
    running, most, lock = set(), [], threading.Lock()
    np.ones((2, 2)) @ np.ones((2, 2))

    def work(number):
        with lock:
            running.add(number)
            most.append(len(running))
        time.sleep(0.02)  # so that all who may run do
        # That of faiss, where another test has loaded it, counts by the thread that asks (OpenMP).
        own = [pool for pool in threadpool_info() if pool.get("threading_layer") == "pthreads"]
        pools = [pool["num_threads"] for pool in own]
        with lock:
            running.remove(number)
        return pools

    before = threadpool_info()
    assert {count for pools in at_once(work, range(20)) for count in pools} == {1}
    assert 1 < max(most) <= 4
    assert threadpool_info() == before


def test_at_once_tells_of_the_first_fault():
    def work(number):
        if number:
            raise ValueError(number)

    with pytest.raises(ValueError, match="1"):
        at_once(work, range(5))


@pytest.mark.parametrize("fails", [False, True])
def test_threads_that_multiply_take_one_thread_each(fails):
    np.ones((2, 2)) @ np.ones((2, 2))

    def work(low, high):
        if fails:
            raise ValueError
        pools = [
            pool["num_threads"] for pool in threadpool_info() if pool.get("threading_layer") == "pthreads"
        ]
        return {torch.get_num_threads(), *pools}

    with torch_threads.threads(3):
        before = threadpool_info()
        with pytest.raises(ValueError) if fails else nullcontext():
            assert threads.in_threads(work, [(0, 1), (1, 2)], multiplies=True) == [{1}, {1}]
        assert (torch.get_num_threads(), threadpool_info()) == (3, before)


def test_a_share_of_the_cpus_is_all_that_is_used(monkeypatch):
    """``LOKY_MAX_CPU_COUNT`` stands for the limit of a container."""
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    assert threads.usable_cpus() == 1
    before = torch.get_num_threads()
    try:
        for asked, expected in (("3", 3), (None, 1)):
            torch.set_num_threads(3)
            monkeypatch.setenv("OMP_NUM_THREADS", asked) if asked else monkeypatch.delenv("OMP_NUM_THREADS")
            choose_engine("cpu", "fp32")
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)
