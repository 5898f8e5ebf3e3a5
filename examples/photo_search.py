"""Index a folder of photographs and search it.

python examples/photo_search.py holiday "dog on the beach"
"""

import sys

import edgecap
from edgecap.photos import Index, IndexOptions, search


def main(folder: str, words: str) -> None:
    # By default the index is one file in your data folder; here it is one of its own.
    database = "photo_search.db"
    report = Index(database, options=IndexOptions(beams=2)).update(folder)
    print(f"{report.found} photographs, {report.captioned} captioned, {report.unchanged} unchanged")
    answer = search(words, database=database, folder=folder, limit=5)
    if answer.matched == "any":
        print(f"no caption has all of {', '.join(answer.words)}; these have some:")
    for hit in answer.hits:
        print(f"{hit.path}: {hit.text} [{hit.confidence:.0%}]")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit('give a folder of photographs and words: holiday "dog on the beach"')
    try:
        main(*sys.argv[1:])
    except edgecap.EdgeCapError as error:
        sys.exit(str(error))
