#!/usr/bin/env python3
"""Builds the images that the repository carries, from packages, byte for byte.

  assets/benchmark/NAME.npz     eight tasks of 100 images on which new networks are measured
  assets/probe.npz              128 varied images for the signature of a network
  assets/queries/SET/CLASS/     five sets that neither the tasks nor the starter zoo may contain
  assets/CREDITS.md             whom to thank, for each set and for the sources of assets/starter.tar

Sets, classes and sources are in scripts/starter.json. No image of a query example occurs in a task
or among the probe images; the script checks it.

Needs Python 3.9 or newer, pip, npm, and apt-get (Debian or Ubuntu; no root).
"""

import collections
import io
import os
import random
import shutil

import build_starter_zoo
import packages
import starter_data

SEED = 1
PROBE_SIDE, PROBE_COUNT = 64, 128
# Photographs in scikit-image that their makers gave to the public domain or under CC0.
PHOTOS = {
    "astronaut.png": "NASA, public domain",
    "brick.png": "CC0Textures, CC0-1.0",
    "camera.png": "Lav Varshney, CC0-1.0",
    "chelsea.png": "Stefan van der Walt, CC0-1.0",
    "coffee.png": "Rachel Michetti, CC0-1.0",
    "grass.png": "CC0Textures, CC0-1.0",
    "gravel.png": "CC0Textures, CC0-1.0",
    "hubble_deep_field.jpg": "NASA, public domain",
    "retina.jpg": "Mikael Häggström, CC0-1.0",
    "rocket.jpg": "SpaceX, public domain",
}
CROPS_PER_PHOTO = 3
# How many probe images each set gives, besides the photographs.
PROBE_SETS = {
    "clipart_topics": 30, "fashion_mnist": 16, "icons_colour": 16, "icons_tools": 8,
    "icons_leisure": 8, "font_kind": 8, "char_greek": 4, "char_kanji": 4, "char_armenian": 4,
}


class Credits:
    """What assets/CREDITS.md says: a section for each set, with the designs it draws from."""

    HEAD = """# Credits

The images of this folder come from the packages below, under permissive licences or in the public
domain; scripts/build_benchmark.py makes them again. They were drawn from fonts and vector files or
cut to their content, scaled, and put on a plain ground; nothing else was changed. The weights in
backbone/ have their own NOTICE.

Licences: Apache-2.0, text in backbone/LICENSE. MIT, ISC and BSD-3-Clause, texts at the end of this
file. CC-BY-4.0 and CC-BY-3.0, creativecommons.org/licenses/by/4.0 and /3.0. OFL-1.1,
openfontlicense.org (images drawn with a font are not the font). CC0-1.0, the Unlicense and public
domain ask for nothing. BSD-2-Clause is BSD-3-Clause without its third condition. Bitstream Vera and
the M+ and Sazanami fonts, texts at the end of this file. Licences of fonts are spelled as in their
packages: Expat is MIT, SIL and OFL are OFL-1.1 unless a version is named.
"""
    TEXTS = """
## Licence texts

MIT: Permission is hereby granted, free of charge, to any person obtaining a copy of this software
and associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions: The above copyright notice and this
permission notice shall be included in all copies or substantial portions of the Software. THE
SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT
LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT.
IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

ISC: Permission to use, copy, modify, and/or distribute this software for any purpose with or
without fee is hereby granted, provided that the above copyright notice and this permission notice
appear in all copies. THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH
REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT
SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY
DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT,
NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF
THIS SOFTWARE.

BSD-3-Clause: Redistribution and use in source and binary forms, with or without modification, are
permitted provided that the following conditions are met: 1. Redistributions of source code must
retain the above copyright notice, this list of conditions and the following disclaimer.
2. Redistributions in binary form must reproduce the above copyright notice, this list of conditions
and the following disclaimer in the documentation and/or other materials provided with the
distribution. 3. Neither the name of the copyright holder nor the names of its contributors may be
used to endorse or promote products derived from this software without specific prior written
permission. THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY
EXPRESS OR IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF
MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT
HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR
CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES;
LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF
LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE)
ARISING IN ANY WAY OUT OF THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH
DAMAGE.

Bitstream Vera: Permission is hereby granted, free of charge, to any person obtaining a copy of the
fonts accompanying this license ("Fonts") and associated documentation files (the "Font Software"),
to reproduce and distribute the Font Software, including without limitation the rights to use, copy,
merge, publish, distribute, and/or sell copies of the Font Software, and to permit persons to whom
the Font Software is furnished to do so, subject to the following conditions: The above copyright
and trademark notices and this permission notice shall be included in all copies of one or more of
the Font Software typefaces. The Font Software may be modified, altered, or added to, and in
particular the designs of glyphs or characters in the Fonts may be modified and additional glyphs or
characters may be added to the Fonts, only if the fonts are renamed to names not containing either
the words "Bitstream" or the word "Vera". This License becomes null and void to the extent
applicable to Fonts or Font Software that has been modified and is distributed under the "Bitstream
Vera" names. The Font Software may be sold as part of a larger software package but no copy of one
or more of the Font Software typefaces may be sold by itself. THE FONT SOFTWARE IS PROVIDED "AS IS",
WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO ANY WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT OF COPYRIGHT, PATENT,
TRADEMARK, OR OTHER RIGHT. IN NO EVENT SHALL BITSTREAM OR THE GNOME FOUNDATION BE LIABLE FOR ANY
CLAIM, DAMAGES OR OTHER LIABILITY, INCLUDING ANY GENERAL, SPECIAL, INDIRECT, INCIDENTAL, OR
CONSEQUENTIAL DAMAGES, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF THE
USE OR INABILITY TO USE THE FONT SOFTWARE OR FROM OTHER DEALINGS IN THE FONT SOFTWARE. Except as
contained in this notice, the names of Gnome, the Gnome Foundation, and Bitstream Inc., shall not be
used in advertising or otherwise to promote the sale, use or other dealings in this Font Software
without prior written authorization from the Gnome Foundation or Bitstream Inc., respectively.

M+ fonts: These fonts are free software. Unlimited permission is granted to use, copy, and
distribute it, with or without modification, either commercially and noncommercially. THESE FONTS
ARE PROVIDED "AS IS" WITHOUT WARRANTY.

Sazanami fonts: Binary data is handled equivalent to source code license. However, there is no
limitation and the below description is not applied as for in order not to reuse as font (ex: font
is embedded to documents).
"""
    STARTER = """
## starter.tar

It holds no image. It holds the weights of networks that were trained from random weights on the
sets below, and of each set and benchmark task at most 64 feature rows, the means of its classes and
hashes of its images. The networks are licensed as the project is, MIT OR Apache-2.0.

| package | licence | sets |
|---|---|---|
"""

    def __init__(self):
        self.text, self.named = self.HEAD, set()

    def section(self, title, spec, shelf, groups):
        self.text += f"\n## {title}\n\nPackage: {spec['packages']}. Licence: {spec['licence']}.\n"
        self.text += spec.get("credit", "")
        self.designs(shelf.credits(spec, groups))

    def designs(self, credited):
        for c in credited:
            link = f", {c.url}" if c.url else ""
            self.text += f"- {c.title}: {c.author}; {c.licence}{link}\n"
            self.named.add(c.group)

    def starter(self, specs, shelf):
        """What the starter zoo was learned from: the designs that its sets may draw from, once each."""
        sets = collections.defaultdict(list)
        for name, spec in specs.items():
            sets[spec["packages"], spec["licence"]].append(name)
        self.text += self.STARTER
        for (package, licence), names in sets.items():
            self.text += f"| {package} | {licence} | {', '.join(names)} |\n"
        known = {**shelf.fonts().credits, **shelf.icons().credits}
        groups = set(shelf.fonts().credits) | icon_sets(specs.values(), shelf.icons())
        self.text += "\nFonts and icon sets of these that no section above names:\n"
        self.designs([known[group] for group in sorted(groups - self.named)])


def icon_sets(specs, icons):
    """The icon sets that these sets of images may draw from."""
    found = set()
    for spec in specs:
        if spec["kind"] in ("icons", "icons_colour"):
            shown = icons.shown[spec["kind"] == "icons_colour"]
            found |= {group for name in starter_data.classes(spec) for group, _ in shown[name]}
        elif spec["kind"] == "icon_sets":
            found |= set(starter_data.classes(spec))
        elif spec["kind"] == "icon_hues":
            found |= set(spec["sets"].split())
    return found


def collect(shelf, spec, cap, seed, forbidden):
    import sources

    names = starter_data.classes(spec)
    return sources.collect(shelf.items(spec), names, cap, seed, forbidden)


def build_queries(wanted, shelf, credits):
    """Writes the image folders; returns the digests of their images."""
    import sources
    from PIL import Image

    digests = set()
    for name, spec in wanted["queries"].items():
        made = collect(shelf, spec, spec["cap"], SEED, frozenset())
        folder = os.path.join(packages.root(), "assets", "queries", name)
        shutil.rmtree(folder, ignore_errors=True)
        size = 0
        for label, title in enumerate(made.class_names):
            os.makedirs(os.path.join(folder, title))
            for i, image in enumerate(made.x[made.y == label]):
                data = io.BytesIO()
                picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
                picture.save(data, "PNG", optimize=True)
                size += len(data.getvalue())
                packages.install(os.path.join(folder, title, f"{i:03}.png"), data.getvalue())
        digests |= {sources.digest(image) for image in made.x}
        credits.section(f"queries/{name}", spec, shelf, made.group_names)
        report(f"queries/{name}", made, size)
    return digests


def build_benchmark(wanted, shelf, credits, forbidden):
    """Writes the tasks: as many classes as fit `100 / images a class`, the clearest ones."""
    import numpy as np

    for name, per_class in wanted["benchmark"].items():
        spec = dict(wanted["sets"][name])
        names = starter_data.classes(spec)[: 100 // per_class]
        spec["classes"] = "".join(names) if spec["kind"] == "glyphs" else " ".join(names)
        made = collect(shelf, spec, per_class, SEED, forbidden)
        if len(made.x) != 100:
            packages.fail(f"{name}: expected 100 images, found {len(made.x)}")
        path = os.path.join(packages.root(), "assets", "benchmark", f"{name}.npz")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        arrays = made.arrays()
        arrays["y"], arrays["group"] = made.y.astype(np.int64), made.group.astype(np.int64)
        packages.write_npz(path, arrays)
        credits.section(f"benchmark/{name}", spec, shelf, made.group_names)
        report(f"benchmark/{name}", made, os.path.getsize(path))


def photo_crops(version):
    """Square pieces of photographs at several scales, 64 x 64 in colour."""
    import numpy as np
    from PIL import Image

    archive, chance, crops = packages.wheel("scikit-image", version), random.Random(SEED), []
    for name in PHOTOS:
        photo = Image.open(io.BytesIO(archive.read(f"skimage/data/{name}"))).convert("RGB")
        shorter = min(photo.size)
        for i in range(CROPS_PER_PHOTO):
            side = shorter if i == 0 else chance.randrange(shorter // 4, shorter * 3 // 4)
            left, top = (chance.randrange(n - side + 1) for n in photo.size)
            piece = photo.crop((left, top, left + side, top + side))
            crops.append(np.asarray(piece.resize((PROBE_SIDE, PROBE_SIDE), Image.LANCZOS)))
    return crops


def enlarged(image):
    """An image of any size and one or three channels as 64 x 64 in colour."""
    import numpy as np
    from PIL import Image

    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).convert("RGB")
    return np.asarray(picture.resize((PROBE_SIDE, PROBE_SIDE), Image.BICUBIC))


def build_probe(wanted, shelf, credits, forbidden):
    """Writes the probe images in a seeded order, so that any first n of them are varied too."""
    import numpy as np

    images = photo_crops(wanted["versions"]["scikit-image"])
    credits.text += "\n## probe: photographs\n\nPackage: PyPI scikit-image, cropped and scaled.\n"
    credits.text += "".join(f"- {name}: {maker}\n" for name, maker in PHOTOS.items())
    for name, count in PROBE_SETS.items():
        spec = wanted["sets"][name]
        share = -(-count // len(starter_data.classes(spec)))
        made = collect(shelf, spec, share, SEED + 1, forbidden)
        chosen = random.Random(SEED).sample(range(len(made.x)), count)
        images += [enlarged(made.x[i]) for i in chosen]
        groups = sorted({made.group_names[made.group[i]] for i in chosen})
        credits.section(f"probe: {name}", spec, shelf, groups)
    random.Random(SEED).shuffle(images)
    if len(images) != PROBE_COUNT:
        packages.fail(f"expected {PROBE_COUNT} probe images, found {len(images)}")
    path = os.path.join(packages.root(), "assets", "probe.npz")
    packages.write_npz(path, {"x": np.stack(images)})
    print(f"{'probe':30} {PROBE_COUNT} images, {os.path.getsize(path)} bytes", flush=True)


def report(name, made, size):
    shape, counts = "x".join(map(str, made.x.shape[1:])), made.counts()
    print(
        f"{name:30} {len(made.x):3} images {shape:8} {len(counts):2} classes of "
        f"{counts.min()}-{counts.max()}, {len(made.group_names)} groups, {size} bytes",
        flush=True,
    )


def main():
    packages.in_venv(starter_data.REQUIREMENTS)
    wanted = starter_data.table()
    shelf, credits = starter_data.Shelf(wanted), Credits()
    forbidden = build_queries(wanted, shelf, credits)
    build_benchmark(wanted, shelf, credits, forbidden)
    build_probe(wanted, shelf, credits, forbidden)
    starter = build_starter_zoo.STARTER_SETS
    credits.starter({n: spec for n, spec in wanted["sets"].items() if n in starter}, shelf)
    path = os.path.join(packages.root(), "assets", "CREDITS.md")
    packages.install(path, (credits.text + credits.TEXTS).encode())


if __name__ == "__main__":
    main()
