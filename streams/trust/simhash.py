"""Similarity hashes of episodes, compared by Hamming distance: near-duplicates differ in few bits of 64."""

import re
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_WORDS = re.compile(r"\w+")
_SHINGLE = 3
_BITS = np.arange(64, dtype=np.uint64)


def simhash(text: str) -> int:
    """SimHash (Charikar 2002) of the text's word triples, without regard to case, digits and punctuation; 64 bits."""
    words = _WORDS.findall(re.sub(r"\d+", "0", text.lower()))
    shingles = {" ".join(words[i : i + _SHINGLE]) for i in range(max(1, len(words) - _SHINGLE + 1))}
    hashes = _spread(np.array([zlib.crc32(shingle.encode()) for shingle in sorted(shingles)], dtype=np.uint64))
    votes = ((hashes[:, None] >> _BITS) & np.uint64(1)).sum(axis=0)
    return int((np.uint64(1) << _BITS[votes * 2 > len(hashes)]).sum())


def distances(one: int, others: Sequence[int]) -> NDArray[np.uint8]:
    """The number of bits in which each of the others differs from it."""
    differing: NDArray[np.uint8] = np.bitwise_count(np.asarray(others, dtype=np.uint64) ^ np.uint64(one))
    return differing


def _spread(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """32 bits to 64 that all depend on each of them: the finaliser of SplitMix64 (Steele et al. 2014)."""
    values = (values + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    spread: NDArray[np.uint64] = values ^ (values >> np.uint64(31))
    return spread
