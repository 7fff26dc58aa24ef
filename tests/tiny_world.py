"""Settings small enough for a test, for the data set of the fixture `tiny`."""

TINY = (
    "image.height=32",
    "image.width=16",
    "cam.epochs=3",
    "cam.iters=3",
    "cam.batch_size=16",
    "cam.distance.k1=8",
    "cam.distance.k2=3",
    "global.epochs=3",
    "global.iters=3",
    "global.batch_size=16",
    "global.distance.k1=8",
    "global.distance.k2=3",
    "global.clusterer.eps=0.7",
    "global.clusterer.min_samples=2",
)
