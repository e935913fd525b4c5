"""Rows of the same text are told exactly, in bounded memory."""

import random
import resource

from envtune.data.taken import duplicates


def test_a_digest_tells_texts_borders_and_ways_to_read_apart() -> None:
    texts = [
        ({}, "ab", "c"), ({}, "a", "bc"), ({}, "abc", ""), ({}, "", "abc"), ({"type": "a"}, "ab", "c"),
        ({"type": "b"}, "ab", "c"), ({}, "\ud800", ""), ({}, "\ufffd", ""), ({}, "e\u0301", ""), ({}, "\xe9", ""),
    ]  # fmt: skip
    made = [duplicates.digest(*text) for text in texts]
    assert len(set(made)) == len(texts)
    assert made == [duplicates.digest(*text) for text in texts]
    ordered = (
        duplicates.digest({"a": 1, "b": 2}, "", ""),
        duplicates.digest({"b": 2, "a": 1}, "", ""),
    )
    assert ordered[0] == ordered[1]


def test_what_was_seen_is_told_as_a_set_would_whatever_lies_on_disk(dice: random.Random) -> None:
    for held in (1, 2, 7, 1000):
        seen, known = duplicates.Seen(held), set[bytes]()
        for _ in range(60):
            # Few bytes, zeros among them: what sorts and ends oddly.
            batch = [
                bytes(dice.choices(b"\0\0a", k=4)) + bytes(12) for _ in range(dice.randrange(9))
            ]
            told = []
            for one in batch:
                told.append(one not in known)
                known.add(one)
            assert seen.fresh(batch) == told


def test_memory_does_not_grow_with_the_rows() -> None:
    seen, rows = duplicates.Seen(10_000), 300_000
    digests = [number.to_bytes(16, "big") for number in range(20_000)]
    seen.fresh(digests)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for start in range(20_000, rows, 5_000):
        assert all(seen.fresh([n.to_bytes(16, "little") for n in range(start, start + 5_000)]))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 12_000, f"{grown} KiB"  # a set of them would take 30,000
    assert not any(seen.fresh(digests))
