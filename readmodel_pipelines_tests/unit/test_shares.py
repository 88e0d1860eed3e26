"""Room that kinds share: none is shut out, whichever comes first."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from readmodel_pipelines.shares import SharedRoom, shared

kinds = st.lists(st.sampled_from("abc"), max_size=30)


@given(kinds, st.integers(0, 12))
def test_each_kind_has_as_much_as_any_other_that_needs_it(items: list[str], most: int) -> None:
    numbered = list(enumerate(items))
    kept = shared(numbered, most, lambda item: item[1])
    there, got = Counter(items), Counter(kind for _, kind in kept)

    assert len(kept) == min(most, len(items))
    assert kept == sorted(kept)
    for kind, number in there.items():
        # The first of its kind; and where some are left out, nobody has more than one more.
        assert [item for item in kept if item[1] == kind] == [item for item in numbered if item[1] == kind][: got[kind]]
        assert got[kind] == number or all(got[kind] + 1 >= other for other in got.values())


def test_a_wide_kind_leaves_room_for_the_others() -> None:
    room: SharedRoom[str] = SharedRoom(100, most_bytes=100)
    for number in range(5):
        room.add("wide", f"wide {number}", 40)
    for number in range(5):
        room.add("narrow", f"narrow {number}", 8)
    assert room.items() == ["wide 0", *(f"narrow {number}" for number in range(5))]
