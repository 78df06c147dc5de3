"""Tables and a plot of a comparison, put into docs/BENCHMARKS.md between its markers."""

import datetime
import math
import os
import platform
import subprocess

import peers

DOCS = os.path.join(peers.HERE, "../../docs")
COLOURS = {
    "tans": "#c0392b", "hnswlib": "#2471a3", "usearch": "#1e8449", "faiss": "#7d3c98", "hannoy": "#7f8c8d",
}


def write(vectors, results, extra, options):
    """Prints the report and replaces the part of docs/BENCHMARKS.md that belongs to the dataset."""
    text = "\n\n".join(
        part
        for part in [
            heading(vectors, options),
            f"![queries a second against recall](bench-{vectors.name}.svg)",
            summary(results, options),
            rates(results, options),
            alone(extra),
        ]
        if part
    )
    print(text)
    with open(os.path.join(DOCS, f"bench-{vectors.name}.svg"), "w") as file:
        file.write(plot(results))
    put(vectors.name, text)


def put(name, text):
    """Replaces the part of docs/BENCHMARKS.md of that name."""
    path = os.path.join(DOCS, "BENCHMARKS.md")
    with open(path) as file:
        before, _, rest = file.read().partition(f"<!-- {name} -->\n")
        _, _, after = rest.partition("<!-- end -->")
    with open(path, "w") as file:
        file.write(f"{before}<!-- {name} -->\n{text}\n<!-- end -->{after}")


def heading(vectors, options):
    return (
        f"{len(vectors.base):,} x {vectors.base.shape[1]}, {len(vectors.queries):,} queries, k = 10, "
        f"medians of {options.repeats} rounds; {machine()}."
    )


def machine():
    """Processor, load, date and commit."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=DOCS, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    with open("/proc/cpuinfo") as file:
        processor = next((line.split(":")[1].strip() for line in file if "model name" in line), "")
    load = os.getloadavg()[2]
    return (
        f"{processor or platform.machine()}, {os.cpu_count()} cores, load average {load:.1f} (other work on "
        f"the machine), {datetime.date.today()}, commit {commit}"
    )


def table(head, rows):
    line = lambda cells: "| " + " | ".join(map(str, cells)) + " |"
    return "\n".join([line(head), line(["---"] + ["--:"] * (len(head) - 1)), *map(line, rows)])


def summary(results, options):
    """One row a system: speed at the recalls of the targets, build, disk, memory, opening."""
    number = lambda value: f"{value:,.0f}" if value else "not reached"
    head = ["system"]
    head += [f"q/s at {recall}, {n} thr." for n in options.threads for recall in peers.RECALLS]
    head += ["build, CPU s", "file, MB", "resident, MB", "open to first answer, ms"]
    rows = []
    for system, result in results.items():
        speeds = [peers.rate_at(result, r, n) for n in options.threads for r in peers.RECALLS]
        rest = [f"{result['build']:.1f}", f"{result['bytes'] / 1e6:.0f}"]
        rest += [f"{result['resident'] / 1e6:.0f}", f"{result['open'] * 1e3:.1f}"]
        rows.append([system, *map(number, speeds), *rest])
    return table(head, rows)


def rates(results, options):
    """Queries a second and recall for each ef, one thread."""
    threads = options.threads[0]
    cell = lambda result, ef: f"{result['rate', threads, ef]:,.0f} at {result['recall', ef]:.4f}"
    rows = [[ef, *(cell(result, ef) for result in results.values())] for ef in peers.EFS]
    return table(["ef", *results], rows)


def alone(extra):
    """Paragraphs on single queries, filters, the exact scan and the paper's search."""
    if not extra:
        return ""
    parts = []
    for row in extra["latency"]:
        parts.append(
            f"Single queries at ef {row['ef']}, wall time: median {row['p50_us']:.0f} us, "
            f"99th percentile {row['p99_us']:.0f} us."
        )
    rows = [
        [f"{row['share']:.4%}", row["kind"], f"{row['us']:.0f}", f"{row['recall']:.4f}"]
        for row in extra["filters"]
    ]
    parts.append(table(["filter keeps", "by", "us a query (CPU)", "recall@10"], rows))
    scans = [(row["scan_gb_s"], row["plain_gb_s"]) for row in extra["scan"]]
    scan, plain = (sorted(column)[len(scans) // 2] for column in zip(*scans))
    parts.append(
        f"Exact scan: {scan:.1f} GB/s of vectors, plain reading of the same bytes by one thread "
        f"{plain:.1f} GB/s: {scan / plain:.0%}."
    )
    if extra["paper"]:
        torch, tans = extra["paper"]["torch"] * 1e6, extra["paper"]["tans"] * 1e6
        parts.append(
            f"14,000 x 128, k = 10, one thread: torch.mm + sort {torch:.0f} us, tans {tans:.0f} us "
            f"at recall 0.99: {torch / tans:.0f} x."
        )
    return "\n\n".join(parts)


def plot(results):
    """Queries a second (log) against recall@10, one thread."""
    width, height, left, bottom = 640, 400, 70, 50
    points = {
        system: [(r, q) for r, q, _ in peers.curve(result, 1) if r >= 0.9]
        for system, result in results.items()
    }
    every = [rate for curve in points.values() for _, rate in curve] or [1, 10]
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    x = lambda recall: left + (recall - 0.9) / 0.1 * (width - left - 110)
    y = lambda rate: height - bottom - (math.log10(rate) - low) / (high - low) * (height - bottom - 20)
    text = lambda at_x, at_y, words, rest="": f'<text x="{at_x:.0f}" y="{at_y:.0f}" {rest}>{words}</text>'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for step in range(6):
        recall = 0.9 + 0.02 * step
        lines.append(text(x(recall), height - bottom + 18, f"{recall:.2f}", 'text-anchor="middle"'))
        lines.append(path([(x(recall), y(10**low)), (x(recall), y(10**high))], "#dddddd"))
    for power in range(low, high + 1):
        lines.append(text(left - 8, y(10**power) + 4, f"{10**power:,}", 'text-anchor="end"'))
        lines.append(path([(x(0.9), y(10**power)), (x(1.0), y(10**power))], "#dddddd"))
    for at, (system, curve) in enumerate(points.items()):
        lines.append(path([(x(r), y(q)) for r, q in curve], COLOURS[system], 2))
        lines.append(text(width - 95, 40 + 18 * at, system, f'fill="{COLOURS[system]}"'))
    lines.append(text((left + width - 110) / 2, height - 10, "recall@10", 'text-anchor="middle"'))
    lines.append(text(left, 14, "queries a second, one thread"))
    return "\n".join(lines + ["</svg>", ""])


def path(points, colour, width=1):
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{steps}" fill="none" stroke="{colour}" stroke-width="{width}"/>'
