from hypothesis import given
from hypothesis import strategies as st

from terazi.search.pareto import dominators

POINTS = st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), min_size=1, max_size=12)


def dominates(a, b):
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


@given(POINTS)
def test_each_point_is_on_the_front_or_has_a_dominator_that_is(points):
    found = dominators(points)
    for point, index in zip(points, found, strict=True):
        if index is None:
            assert not any(dominates(other, point) for other in points)
        else:
            assert dominates(points[index], point)
            assert found[index] is None


@given(POINTS)
def test_the_front_is_never_empty_and_ignores_order(points):
    front = {point for point, index in zip(points, dominators(points), strict=True) if index is None}
    backwards = points[::-1]
    assert front
    assert front == {p for p, index in zip(backwards, dominators(backwards), strict=True) if index is None}


def test_equal_points_stay_together():
    assert dominators([(1.0, 1.0), (1.0, 1.0), (2.0, 1.0)])[:2] == [None, None]
