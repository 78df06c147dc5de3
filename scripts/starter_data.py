#!/usr/bin/env python3
"""Makes the datasets of the starter zoo, NAME.npz, in the cache folder, from packages alone.

  starter_data.py [NAME ...]      all sets of scripts/starter.json, or the named ones

Each file holds x (u8, [n, h, w, c]), y, class_names and group (the font package, icon set or folder
an image comes from). Sampling is seeded; files that are there are kept. The end prints the family
table, computed from shared images: by exact bytes and by difference hash.

Needs Python 3.9 or newer, pip, npm, and apt-get (Debian or Ubuntu; no root).
"""

import json
import os
import sys

import packages

REQUIREMENTS = ("numpy==1.26.4", "pillow==11.3.0", "fonttools==4.60.1", "resvg-py==0.5.0")
SEED = 2026
# The icon set that has each icon in six weights.
WEIGHT_SET = "ph"
# Two sets are one family where they share more than this part of the smaller set's images.
SHARED_EXACT_MAX, SHARED_HASH_MAX = 0.10, 0.30


def table():
    """scripts/starter.json: sets, query examples, benchmark tasks, font packages, versions."""
    with open(os.path.join(packages.root(), "scripts", "starter.json")) as file:
        return json.load(file)


def folder():
    """Where the datasets lie."""
    return packages.cache("starter", "data")


class Shelf:
    """The sources, each opened once and only when a set asks for it."""

    def __init__(self, wanted):
        self.wanted, self._fonts, self._icons = wanted, None, None

    def fonts(self):
        import sources

        if self._fonts is None:
            permissive = not self.wanted.get("any_font_licence")
            self._fonts = sources.Fonts(self.wanted["fonts"], permissive)
        return self._fonts

    def icons(self):
        import sources

        if self._icons is None:
            specs = {**self.wanted["sets"], **self.wanted["queries"]}.values()
            of_kind = lambda *kinds: (s for s in specs if s["kind"] in kinds)
            concepts = {c for s in of_kind("icons", "icons_colour") for c in classes(s)}
            whole = {c for s in of_kind("icon_sets_plain") for c in classes(s)}
            version = self.wanted["versions"]["@iconify/json"]
            self._icons = sources.Icons(version, concepts, WEIGHT_SET, whole)
        return self._icons

    def items(self, spec):
        """All images that a set may draw from."""
        import sources

        side, names, versions = spec["side"], classes(spec), self.wanted["versions"]
        emoji = versions["emoji-datasource"]
        makers = {
            "icons": lambda: sources.icon_items(self.icons(), names, side),
            "icons_colour": lambda: sources.icon_items(self.icons(), names, side, colour=True),
            "icon_sets": lambda: sources.icon_set_items(self.icons(), names, side),
            "icon_sets_plain": lambda: sources.icon_set_items(self.icons(), names, side, False),
            "icon_hues": lambda: sources.icon_hue_items(self.icons(), spec["sets"].split(), side),
            "clipart_hues": lambda: sources.by_hue(
                sources.clipart("", side, set(spec["folders"].split()))
            ),
            "icon_weights": lambda: sources.icon_weight_items(self.icons(), names, side),
            "glyphs": lambda: sources.glyphs(self.fonts(), spec["classes"], side),
            "font_styles": lambda: sources.font_styles(self.fonts(), side),
            "font_kinds": lambda: sources.font_kinds(self.fonts(), side),
            "font_scripts": lambda: sources.font_scripts(self.fonts(), self.scripts(names), side),
            "clipart": lambda: sources.clipart(spec["folder"], side, set(names)),
            "fashion": sources.fashion,
            "silhouettes": sources.silhouettes,
            "emoji": lambda: sources.skin_tones(emoji, side),
            "emoji_kinds": lambda: sources.emoji_kinds(emoji, side, spec["field"]),
            "emoji_persons": lambda: sources.emoji_persons(emoji, side),
            "digits": lambda: sources.digits(versions["mnist"]),
            "sprites": lambda: sources.sprites(side),
        }
        return makers[spec["kind"]]()

    def scripts(self, names):
        return {name: self.wanted["sets"][f"char_{name}"]["classes"] for name in names}

    def credits(self, spec, groups):
        """Whom to thank for the images of these groups."""
        kind = spec["kind"]
        if kind == "icon_weights":
            return [self.icons().credits[WEIGHT_SET]]
        if kind.startswith("icon"):
            return [self.icons().credits[group] for group in groups]
        if kind.startswith(("glyph", "font")):
            return [self.fonts().credits[group] for group in groups]
        return []


def classes(spec):
    """The class names of a set; those of a script are its characters."""
    return list(spec["classes"]) if spec["kind"] == "glyphs" else spec["classes"].split()


def difference_hash(image):
    """64 bits: whether each of 8 x 8 cells is brighter than its right neighbour."""
    import numpy as np
    from PIL import Image

    grey = image.mean(axis=2).astype(np.uint8)
    small = np.asarray(Image.fromarray(grey).resize((9, 8), Image.BOX), np.int16)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes()


def shared(first, second):
    """The part of the smaller set's images whose key occurs in the other."""
    few, many = sorted((first, second), key=len)
    many = set(many)
    return sum(key in many for key in few) / len(few)


def print_families(paths, family_of):
    """Prints the pairs of sets that share images, and fails where their families differ."""
    import numpy as np
    import sources

    exact, hashed = {}, {}
    for name, path in paths.items():
        images = np.load(path)["x"]
        exact[name] = [sources.digest(image) for image in images]
        hashed[name] = [difference_hash(image) for image in images]
    names, wrong = sorted(paths), []
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            same, near = shared(exact[a], exact[b]), shared(hashed[a], hashed[b])
            if same > SHARED_EXACT_MAX or near > SHARED_HASH_MAX:
                one = family_of[a] == family_of[b]
                print(f"  {a} + {b}: {same:.0%} exact, {near:.0%} by hash{'' if one else '  !'}")
                wrong += [] if one else [(a, b)]
    return wrong


def held_out():
    """The digests of the query examples: no set may hold one of their images."""
    from PIL import Image
    import sources

    base = os.path.join(packages.root(), "assets", "queries")
    pictures = (Image.open(path) for path in sources.files_under(base, (".png",)))
    digests = {sources.digest(sources.with_channels(picture)) for picture in pictures}
    if not digests:
        packages.fail("assets/queries is empty: run scripts/build_benchmark.py first")
    return digests


def main():
    packages.in_venv(REQUIREMENTS)
    import sources

    wanted = table()
    shelf, paths, forbidden = Shelf(wanted), {}, held_out()
    unknown = [name for name in sys.argv[1:] if name not in wanted["sets"]]
    if unknown:
        packages.fail(f"no set {unknown[0]} in scripts/starter.json")
    for name in sys.argv[1:] or wanted["sets"]:
        spec = wanted["sets"][name]
        paths[name] = os.path.join(folder(), f"{name}.npz")
        if not os.path.exists(paths[name]):
            items = shelf.items(spec)
            made = sources.collect(items, classes(spec), spec["cap"], SEED, forbidden)
            packages.write_npz(paths[name], made.arrays())
            counts, groups = made.counts(), len(made.group_names)
            print(
                f"{name:22} {len(made.x):4} images {'x'.join(map(str, made.x.shape[1:])):8} "
                f"{len(counts):2} classes of {counts.min()}-{counts.max()}, {groups} groups",
                flush=True,
            )
    families = {name: wanted["sets"][name]["family"] for name in paths}
    print(f"{len(paths)} sets in {len(set(families.values()))} families; sets that share images:")
    wrong = print_families(paths, families)
    if wrong:
        packages.fail(f"{wrong[0][0]} and {wrong[0][1]} share images: give them one family")


if __name__ == "__main__":
    main()
