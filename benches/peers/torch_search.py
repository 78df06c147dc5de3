"""The search of the TANS paper: one matrix product with every vector, then a full sort.

  torch_search.py FOLDER QUERIES     with LIBTORCH naming the folder that scripts/setup.sh made

Prints one JSON line with the seconds a query takes on one thread. libtorch is called through its
stable C interface (`aoti_torch_*`), so that no second copy of PyTorch has to be fetched.
"""

import ctypes
import json
import os
import sys
import time

import numpy as np

DIM, K, REPEATS = 128, 10, 5
FLOAT32, CPU = 6, 0


def main():
    folder, count = sys.argv[1], int(sys.argv[2])
    os.environ["OMP_NUM_THREADS"] = "1"
    library = ctypes.CDLL(os.path.join(os.environ["LIBTORCH"], "lib", "libtorch_cpu.so"))
    rows = lambda name: np.fromfile(os.path.join(folder, name), np.float32).reshape(-1, DIM)
    base, queries = rows("base.f32"), rows("queries.f32")[:count]
    scores = np.zeros((1, len(base)), np.float32)
    # The transposed view, as `torch.mm(query, base.T)` sees it.
    base_t = tensor(library, base, (DIM, len(base)), (1, DIM))
    out = tensor(library, scores, scores.shape, (len(base), 1))
    handles = [tensor(library, query, (1, DIM), (DIM, 1)) for query in queries]
    best = []
    for _ in range(REPEATS):
        start = time.process_time()
        for handle in handles:
            check(library.aoti_torch_cpu_mm_out(out, handle, base_t))
            values, order = ctypes.c_void_p(), ctypes.c_void_p()
            check(
                library.aoti_torch_cpu_sort(
                    out, ctypes.c_int64(1), 1, ctypes.byref(values), ctypes.byref(order)
                )
            )
            nearest = ids(library, order)
            library.aoti_torch_delete_tensor_object(values)
            library.aoti_torch_delete_tensor_object(order)
        best.append((time.process_time() - start) / len(handles))
    expected = np.argsort(-(queries[-1] @ base.T))[:K]
    if list(nearest) != list(expected):
        sys.exit(f"expected the nearest {list(expected)}, found {list(nearest)}")
    print(json.dumps({"cpu": sorted(best)[len(best) // 2]}))


def tensor(library, array, sizes, strides):
    numbers = lambda values: (ctypes.c_int64 * len(values))(*values)
    handle = ctypes.c_void_p()
    check(
        library.aoti_torch_create_tensor_from_blob(
            ctypes.c_void_p(array.ctypes.data), ctypes.c_int64(len(sizes)), numbers(sizes),
            numbers(strides), ctypes.c_int64(0), FLOAT32, CPU, -1, ctypes.byref(handle),
        )
    )
    return handle


def ids(library, handle):
    pointer = ctypes.c_void_p()
    check(library.aoti_torch_get_data_ptr(handle, ctypes.byref(pointer)))
    return np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int64)), (K,)).copy()


def check(code):
    if code:
        sys.exit(f"libtorch refused a call with code {code}")


main()
