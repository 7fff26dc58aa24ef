"""Who is seen where and when: which camera takes how many images of whom, and from which side."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from icsr_cli.errors import InputError
from icsr_cli.synthesis.cameras import PANORAMA_CROPS, PANORAMA_MARGIN, camera_table
from icsr_cli.synthesis.crowd import dress_by_home, make_doubles, popularity
from icsr_cli.synthesis.people import draw_people
from icsr_cli.synthesis.world import World
from icsr_cli.types import NO_TRACK, DoubleArray, IntArray, Records

TRAIN_FOLDER: Final = "bounding_box_train"
QUERY_FOLDER: Final = "query"
GALLERY_FOLDER: Final = "bounding_box_test"
FOLDERS: Final = (TRAIN_FOLDER, QUERY_FOLDER, GALLERY_FOLDER)
#: Frames between two images of one pass, and those of a whole sequence.
_STEP, _SEQUENCE = 25, 60_000

SHOT: Final = np.dtype(
    [
        ("person", "i8"),  # row of the people
        ("camera", "i8"),
        ("visible", "f4"),  # 0: nobody is there, only background
        ("facing", "f4"),  # quarter turns: 0 frontal, 1 to the right, 2 from behind, 3 to the left
        ("phase", "f4"),  # of the walk, -1 to 1
        ("stride", "f4"), ("swing", "f4"), ("lean", "f4"),
        ("shift_x", "f4"), ("shift_y", "f4"), ("scale", "f4"),  # of the crop, of its height
        ("light", "f4"), ("sun", "f4"),  # brightness factor, shading from one side
        ("background_x", "i8"), ("background_y", "i8"),  # pixels into the panorama
        ("occluded", "f4"), ("occluder_x", "f4"), ("occluder_y", "f4"),
        ("companion", "i8"), ("companion_x", "f4"),  # 1 + row of a second person, 0: none; how far beside
    ]
)  # fmt: skip

# One stream of random numbers per purpose, so that a dial moves only what it names.
_PEOPLE, _SEEN, _PASSES, _FRAMES, _NUMBERS, _EXTRAS, _HOMES, _LOOKS, _DOUBLES, _CLUTTER, _JUMPS = range(11)


@dataclass(frozen=True)
class Plan:
    """Everything that is drawn: people (p,), shots (n,), and the n files, relative to the target.

    ``tracks`` and ``frames``, int64 (n,): one track is one pass of a person, or what the tracker made of it;
    frames count on from sequence to sequence. Both are -1 for distractors, junk and clutter.
    """

    people: Records
    shots: Records
    files: tuple[str, ...]
    tracks: IntArray
    frames: IntArray

    def __len__(self) -> int:
        return len(self.files)


def stream(world: World, *key: int) -> np.random.Generator:
    """Give the world's random numbers for one purpose."""
    return np.random.Generator(np.random.PCG64([world.seed, *key]))


def plan(world: World) -> Plan:
    """Decide on every image of ``world``. Raises :class:`InputError` where totals cannot be met."""
    total = world.train_identities + world.test_identities
    strangers = max(1, world.distractors // 4)
    people = draw_people(total + strangers, world.garment_similarity, stream(world, _PEOPLE))
    numbers = 1 + stream(world, _NUMBERS).permutation(total)
    numbers[: world.train_identities].sort()
    numbers[world.train_identities :].sort()
    halves = (_seen(world, test=False), _seen(world, test=True))
    counts, homes = (np.concatenate(both) for both in zip(*halves, strict=True))
    _dress(world, people[:total], homes)
    shots, sequences, frames, tracks = _walk(world, counts)
    files = _files(world, shots, sequences, frames, numbers)
    order = np.argsort(np.array([FOLDERS.index(name.split("/")[0]) for name in files]), kind="stable")
    times = (sequences - 1) * _SEQUENCE + frames  # from the begin of the first sequence
    extra_shots, extra_files = _extras(world, total, strangers)
    clutter_shots, clutter_files = _clutter(world, shots)
    more = np.full(len(extra_files) + len(clutter_files), NO_TRACK)
    return Plan(
        people,
        np.concatenate([shots[order], extra_shots, clutter_shots]),
        tuple(files[row] for row in order) + extra_files + clutter_files,
        np.concatenate([tracks[order], more]),
        np.concatenate([times[order], more]),
    )


def _dress(world: World, people: Records, homes: IntArray) -> None:
    """Let people look like their neighbours, or like one other; no double lives in the other half."""
    dress_by_home(people, homes, world.separation, world.garment_similarity, stream(world, _LOOKS))
    for number, half in enumerate((slice(world.train_identities), slice(world.train_identities, None))):
        make_doubles(people[half], homes[half], world.lookalikes, stream(world, _DOUBLES, number))


def _seen(world: World, *, test: bool) -> tuple[IntArray, IntArray]:
    """Give images per person and camera, int64 (people, cameras), and where each lives, int64 (people,)."""
    people = world.test_identities if test else world.train_identities
    random = stream(world, _SEEN, int(test))
    low, high = (min(bound, world.cameras) for bound in world.cameras_per_person)
    distance = random.random((people, world.cameras)) / popularity(world.cameras, world.uneven)
    preference = distance.argsort(axis=1).argsort(axis=1)
    wanted = low + (random.random(people) * (high - low + 1)).astype(np.int64)
    if test and world.queries is not None:
        wanted = _meet(wanted, low, high, world.queries, "queries", random)
    if not test:
        wanted[stream(world, _HOMES).random(people) < 0.5 * world.separation] = 1
    seen = preference < wanted[:, None]
    least = max(world.images[0], 2) if test else world.images[0]
    most = max(world.images[1], least)
    drawn = least + (random.random((people, world.cameras)) * (most - least + 1)).astype(np.int64)
    counts = np.where(seen, drawn, 0)
    images = world.test_images if test else world.train_images
    if images is not None:
        name = "test_images" if test else "train_images"
        counts[seen] = _meet(counts[seen], least, most, images, name, random)
    return counts, preference.argmin(axis=1)


def _meet(
    values: IntArray, low: int, high: int, total: int, dial: str, random: np.random.Generator
) -> IntArray:
    """Move random entries up or down, within ``low`` and ``high``, until the sum is ``total``."""
    if not low * len(values) <= total <= high * len(values):
        raise InputError(
            f"{dial} is {total}, but the other size dials allow {low * len(values)} to {high * len(values)}; "
            "change it, or the people, the cameras, cameras_per_person or images"
        )
    values = values.copy()
    while (gap := total - int(values.sum())) != 0:
        free = np.flatnonzero(values < high if gap > 0 else values > low)
        values[random.permutation(free)[: abs(gap)]] += 1 if gap > 0 else -1
    return values


def _walk(world: World, counts: IntArray) -> tuple[Records, IntArray, IntArray, IntArray]:
    """Let everybody pass the cameras that see them: shots, sequences, frames within these, and tracks, (n,).

    They come person by person and camera by camera.
    """
    pass_random, frame_random = stream(world, _PASSES), stream(world, _FRAMES)
    person, camera = np.nonzero(counts)
    length = counts[person, camera]
    # Two rows per person and camera: the second is used where a person comes by twice.
    passes = _passes(world, np.repeat(person, 2), np.repeat(camera, 2), pass_random)
    twice = pass_random.random(len(person)) < world.second_pass
    cell = np.repeat(np.arange(len(person)), length)
    within = np.arange(len(cell)) - np.repeat(np.cumsum(length) - length, length)
    second = twice[cell] & (within >= (length[cell] + 1) // 2)
    step = np.where(second, within - (length[cell] + 1) // 2, within)
    number = 2 * cell + second
    shots = passes[number]
    _vary_frames(world, shots, step, frame_random)
    begin = 200 + (pass_random.random(2 * len(person)) * 50_000).astype(np.int64)
    sequences = 1 + person[cell] * 3 // max(len(counts), 1) + 3 * second
    tracks = np.unique(number, return_inverse=True)[1].astype(np.int64)
    begin = begin[number]
    if world.impure_tracks > 0:
        _jump(world, shots, sequences, step, tracks, begin)
    return shots, sequences, begin + _STEP * step, tracks


def _jump(
    world: World, shots: Records, sequences: IntArray, step: IntArray, tracks: IntArray, begin: IntArray
) -> None:
    """Let two people of the training half cross, and the tracker take each for the other; in place.

    Both come at one time, and the second halves of their tracks change places: two impure tracks.
    """
    random = stream(world, _JUMPS)
    first = np.flatnonzero(step == 0)
    length = np.bincount(tracks)
    long = first[(shots["person"][first] < world.train_identities) & (length[tracks[first]] > 1)]
    mixed = random.permutation(long)
    mixed = mixed[np.lexsort((sequences[mixed], shots["camera"][mixed]))]
    ones, others = mixed[:-1:2], mixed[1::2]
    same_place = (shots["camera"][ones] == shots["camera"][others]) & (sequences[ones] == sequences[others])
    meet = random.permutation(np.flatnonzero(same_place & (shots["person"][ones] != shots["person"][others])))
    meet = meet[: round(world.impure_tracks * len(long) / 2)]
    one, other = tracks[ones[meet]], tracks[others[meet]]
    partner = np.arange(len(length))
    partner[one], partner[other] = other, one
    starts = begin[first[np.argsort(tracks[first])]]
    starts[other] = starts[one] + _STEP // 2
    begin[:] = starts[tracks]
    late = 2 * step >= length[tracks]
    tracks[late] = partner[tracks[late]]


def _passes(world: World, person: IntArray, camera: IntArray, random: np.random.Generator) -> Records:
    """Draw what stays the same while a person walks past a camera once."""
    cameras = camera_table(world.cameras)
    count = len(person)

    def spread(width: float) -> DoubleArray:
        return width * (2 * random.random(count) - 1)

    shots = np.zeros(count, SHOT)
    shots["person"], shots["camera"], shots["visible"] = person, camera, 1
    # Half the people walk the camera's way, half the other.
    along = cameras["facing"][camera] + 2 * (random.random(count) < 0.5) + spread(0.6)
    centred = (along + 2) % 4 - 2
    anywhere = random.random(count) < world.view_spread
    shots["facing"] = np.where(anywhere, centred, 0.5 * world.view_spread * centred)
    shots["stride"], shots["swing"] = 1 + spread(0.3), 1 + spread(0.4)
    shots["lean"] = spread(0.01)
    habit = 0.7 * cameras["crop"][camera]
    shots["shift_x"] = world.crop_jitter * (habit[:, 0] + spread(0.021))
    shots["shift_y"] = world.crop_jitter * (habit[:, 1] + spread(0.0175))
    shots["scale"] = world.crop_jitter * (habit[:, 2] + spread(0.042))
    shots["phase"] = 2 * random.random(count)
    shots["light"] = 1 + spread(0.05)
    shots["sun"] = spread(0.25)
    room_x = (PANORAMA_CROPS - 1) * world.width
    shots["background_x"] = (random.random(count) * (room_x + 1)).astype(np.int64)
    room_y = round(world.height * PANORAMA_MARGIN)
    shots["background_y"] = room_y + np.round(spread(0.5 * room_y)).astype(np.int64)
    shots["occluded"] = random.random(count) < world.occlusion
    shots["occluder_x"], shots["occluder_y"] = spread(1), random.random(count)
    return shots


def _vary_frames(world: World, shots: Records, step: IntArray, random: np.random.Generator) -> None:
    """Add what changes from frame to frame, in place."""
    count = len(shots)

    def spread(width: float) -> DoubleArray:
        return width * (2 * random.random(count) - 1)

    shots["facing"] += world.view_spread * spread(0.12)
    walk = (shots["phase"] + 0.37 * step + spread(0.15)) % 2
    shots["phase"] = 2 * np.abs(walk - 1) - 1
    shots["shift_x"] += world.crop_jitter * spread(0.01)
    shots["shift_y"] += world.crop_jitter * spread(0.01)
    shots["scale"] += world.crop_jitter * spread(0.02)
    shots["light"] += spread(0.02)
    drift = step * 0.08 * world.width + spread(0.04 * world.width)
    moved = shots["background_x"] + np.round(drift).astype(np.int64)
    last = (PANORAMA_CROPS - 1) * world.width
    shots["background_x"] = last - np.abs(last - np.abs(moved) % (2 * last))  # turns back at the ends
    shots["occluder_x"] += 0.1 * step + spread(0.05)


def _files(
    world: World, shots: Records, sequences: IntArray, frames: IntArray, numbers: IntArray
) -> list[str]:
    """Name the people's images; the first of each test person and camera is the query."""
    names = []
    before = (-1, -1)
    columns = (shots["person"], shots["camera"], sequences, frames)
    for person, camera, sequence, frame in zip(*(column.tolist() for column in columns), strict=True):
        first, before = (person, camera) != before, (person, camera)
        if person < world.train_identities:
            folder = TRAIN_FOLDER
        else:
            folder = QUERY_FOLDER if first else GALLERY_FOLDER
        box = 0 if folder == QUERY_FOLDER else 1
        names.append(f"{folder}/{numbers[person]:04d}_c{camera + 1}s{sequence}_{frame:06d}_{box:02d}.jpg")
    return names


def _extras(world: World, people: int, strangers: int) -> tuple[Records, tuple[str, ...]]:
    """Make distractors (empty views, pieces of strangers) and junk (the test people, badly cut out)."""
    count = world.distractors + world.junk
    random = stream(world, _EXTRAS)
    junk = np.arange(count) >= world.distractors
    guests = people + (random.random(count) * strangers).astype(np.int64)
    owners = world.train_identities + (random.random(count) * world.test_identities).astype(np.int64)
    person = np.where(junk & (world.test_identities > 0), owners, guests)
    camera = (random.random(count) * world.cameras).astype(np.int64)
    extra = _passes(world, person, camera, random)
    _vary_frames(world, extra, np.zeros(count, np.int64), random)
    extra["visible"] = junk | (random.random(count) < 0.5)
    _cut_badly(extra, random)
    names = [
        f"{GALLERY_FOLDER}/{'-1' if is_junk else '0000'}_c{view + 1}s1_{number:06d}_{number % 100:02d}.jpg"
        for number, (is_junk, view) in enumerate(zip(junk.tolist(), camera.tolist(), strict=True))
    ]
    return extra, tuple(names)


def _cut_badly(shots: Records, random: np.random.Generator) -> None:
    """Cut so that at most half of the person is left: to the side, or much too near; in place."""
    count = len(shots)
    side = np.where(random.random(count) < 0.5, -1, 1)
    far = random.random(count)
    shots["shift_x"] += side * np.where(far < 0.6, 0.14 + 0.12 * far, 0.05)
    shots["shift_y"] += np.where(far < 0.6, 0.1, 0.45) * (2 * random.random(count) - 1)
    shots["scale"] += np.where(far < 0.6, 0.1, 0.8)


def _clutter(world: World, shots: Records) -> tuple[Records, tuple[str, ...]]:
    """Make wrong detections beside the training images: a third each background, half persons, two persons.

    Each is made of one of the ``shots``, so that its pass, its light and its camera are those of real images.
    """
    random = stream(world, _CLUTTER)
    train = shots[shots["person"] < world.train_identities]
    made = train[(random.random(round(world.clutter * len(train))) * len(train)).astype(np.int64)]
    count = len(made)
    kind = (random.random(count) * 3).astype(np.int64)
    empty, half, two = (np.flatnonzero(kind == number) for number in range(3))
    made["visible"][empty] = 0
    room = (PANORAMA_CROPS - 1) * world.width
    made["background_x"][empty] = (random.random(len(empty)) * (room + 1)).astype(np.int64)
    halves = made[half]
    _cut_badly(halves, random)
    made[half] = halves
    # Beside each of the two walks the next of the same camera: round a circle of those who are doubled there.
    two = two[np.lexsort((random.random(len(two)), made["camera"][two]))]
    camera = made["camera"][two]
    begin, after = np.searchsorted(camera, camera), np.searchsorted(camera, camera, side="right")
    place = np.arange(len(two)) + 1
    made["companion"][two] = 1 + made["person"][two[np.where(place < after, place, begin)]]
    side = np.where(random.random(len(two)) < 0.5, -1, 1)
    made["companion_x"][two] = side * (0.2 + 0.06 * random.random(len(two)))
    made["shift_x"][two] -= 0.5 * made["companion_x"][two]
    names = [
        f"{TRAIN_FOLDER}/-1_c{view + 1}s1_{number:06d}_{number % 100:02d}.jpg"
        for number, view in enumerate(made["camera"].tolist())
    ]
    return made, tuple(names)
