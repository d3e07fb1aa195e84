"""Batches in a shuffled order that follows from the seed and the epoch alone, made ahead on a thread."""

from __future__ import annotations

import queue
import random
import threading
from collections.abc import Iterator

from tg_frontend import Tensor
from tg_nn.data.records import Dataset
from tg_nn.errors import DataError

__all__ = ["Loader"]

Batch = tuple[Tensor, ...]


class Loader:
    """An epoch of batches each time it is iterated over.

    Args:
        shuffle: a new order each epoch, the same for the same seed.
        drop_last: leave out the last batch if it is smaller.
        prefetch: how many batches are made ahead; 0 makes them when they are asked for.

    `state_dict` says how far it is; a loader that loads it goes on with the batch after.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int, shuffle: bool = False, seed: int = 0, drop_last: bool = False,
        prefetch: int = 2,
    ):  # fmt: skip
        if batch_size < 1:
            raise DataError(f"Loader: got batch_size {batch_size}, want 1 or more")
        self.dataset, self.batch_size, self.shuffle, self.seed = dataset, batch_size, shuffle, seed
        self.drop_last, self.prefetch = drop_last, prefetch
        self.epoch, self.position = 0, 0
        if not len(self):
            raise DataError(f"Loader: {len(dataset)} samples make no batch of {batch_size}")

    def __len__(self) -> int:
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def order(self, epoch: int) -> list[int]:
        """The numbers of the samples in the order of an epoch."""
        numbers = list(range(len(self.dataset)))
        if self.shuffle:
            random.Random(f"{self.seed}:{epoch}").shuffle(numbers)
        return numbers

    def __iter__(self) -> Iterator[Batch]:
        order, size = self.order(self.epoch), self.batch_size
        parts = [order[at * size : (at + 1) * size] for at in range(self.position, len(self))]
        made = map(self.dataset.batch, parts)
        for batch in _ahead(made, self.prefetch) if self.prefetch else made:
            self.position += 1
            yield batch
        self.epoch, self.position = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how many of its batches were given out."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after what `state_dict` says."""
        self.epoch, self.position = int(state["epoch"]), int(state["position"])


def _ahead(batches: Iterator[Batch], depth: int) -> Iterator[Batch]:
    """The same, made on a thread up to `depth` ahead; an error there is raised here. Leaving early ends the thread."""
    ready: queue.Queue[tuple[Batch | None, BaseException | None]] = queue.Queue(depth)
    left = threading.Event()

    def put(item: tuple[Batch | None, BaseException | None]) -> bool:
        while not left.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for batch in batches:
                if not put((batch, None)):
                    return
        except BaseException as error:
            put((None, error))
        else:
            put((None, None))

    thread = threading.Thread(target=work, name="tg-nn-loader", daemon=True)
    thread.start()
    try:
        while True:
            batch, error = ready.get()
            if error is not None:
                raise error
            if batch is None:
                return
            yield batch
    finally:
        left.set()
        thread.join()
