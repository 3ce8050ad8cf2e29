from hypothesis import given
from hypothesis import strategies as st

from terazi.report.charts import HEIGHT, WIDTH, Point, chart

COORDINATE = st.floats(0, 1e6, allow_nan=False) | st.integers(1, 9).map(float)
POINTS = st.lists(
    st.builds(
        Point,
        label=st.text("QKM_0123456789", min_size=2, max_size=8),
        x=COORDINATE,
        y=COORDINATE,
        kind=st.sampled_from(["pick", "fits", "rejected"]),
        group=st.just("low"),
    ),
    min_size=2,
    max_size=12,
)


def drawn(points, **options):
    found = chart(points, title="t", x_title="x", y_title="y", **{"smaller_x_is_better": True} | options)
    assert found is not None
    return found


@given(POINTS)
def test_everything_is_inside_and_ticks_enclose_the_points(points):
    found = drawn(points)
    assert [mark.point for mark in found.marks] == points
    for mark in found.marks:
        assert found.left <= mark.x <= found.right
        assert found.top <= mark.y <= found.bottom
        assert 0 <= mark.label_x <= WIDTH
        assert 0 <= mark.label_y <= HEIGHT
    for ticks in (found.x_ticks, found.y_ticks):
        assert 2 <= len(ticks) <= 8
        assert len({tick.text for tick in ticks}) == len(ticks)


def test_labels_do_not_overlap_where_there_is_room():
    points = [
        Point(label=f"Q{n}_K_M", x=100 + n * 3, y=90 + n % 3, kind="fits", group="low") for n in range(8)
    ]
    boxes = []
    for mark in drawn(points).marks:
        width = 5 * 7.6
        left = {"start": mark.label_x, "middle": mark.label_x - width / 2, "end": mark.label_x - width}[
            mark.anchor
        ]
        boxes.append((left, mark.label_y - 11, left + width, mark.label_y + 3))
    for index, a in enumerate(boxes):
        for b in boxes[index + 1 :]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_the_front_steps_through_the_best():
    points = [
        Point(label="small", x=1, y=1, kind="fits", group="low"),
        Point(label="beaten", x=2, y=0.5, kind="fits", group="low"),
        Point(label="good", x=3, y=3, kind="pick", group="low"),
        Point(label="rejected", x=0, y=9, kind="rejected", group="low"),
    ]
    found = drawn(points)
    assert found.front.count("H") == 1
    assert found.front.startswith(f"M{found.marks[0].x:.1f} {found.marks[0].y:.1f}")
    assert found.front.endswith(f"H{found.marks[2].x:.1f}V{found.marks[2].y:.1f}")
    assert drawn(points, smaller_x_is_better=False).front == ""


def test_one_point_is_no_picture():
    assert chart([], title="", x_title="", y_title="", smaller_x_is_better=True) is None
