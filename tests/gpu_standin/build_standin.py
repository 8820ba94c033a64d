"""Build the stand-in GPU for the torch of this environment.

    python tests/gpu_standin/build_standin.py OUT && OUT/run.sh COMMAND

What is replaced: the CUDA runtime, cuBLAS, cuDNN, cuSOLVER, cuSPARSE, cuFFT, nvJPEG, NCCL and the driver, by functions
that answer and compute nothing. What is real: Python, torch's dispatcher, autograd, caching allocator (79.1 GiB),
devices of tensors, host synchronisations, Inductor, Triton and ptxas for sm_90. So a run on it finds tensors on two
devices, CPU generators asked for device numbers, misspelt functions of torch.cuda and kernels that do not compile; it
says nothing about values (what is read back is mostly zero) or speed. Needs gcc, nm and a torch built with CUDA.

Environment variables: STANDIN_GIB (79.1) memory of a device, STANDIN_DEVICES (1) their number.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPLACED = re.compile(r'(cuda[A-Z]|__cudaInitModule|cublas|cudnn|cufft|cusolver|cusparse|nccl|nvjpeg)\w*')
LIBRARIES = ('torch_cuda', 'c10_cuda', 'torch_python', 'torch_cuda_linalg', 'torch_nvshmem')


class Unavailable(Exception):
    """This machine or this torch cannot have the stand-in; the message says why."""


def _folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise Unavailable(f'{package} is not installed')
    return Path(next(iter(spec.submodule_search_locations)))


def _run(*words) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f'{words[0]} failed: {done.stderr.strip()[-500:]}')
    return done.stdout


def _symbols(library: Path, which: str) -> set[str]:
    table = _run('nm', *([] if library.suffix == '.o' else ['-D']), which, library)
    return {line.split()[-1].split('@')[0] for line in table.splitlines() if line.strip()}


def _headers(site: Path) -> list[Path]:
    """Folders of CUDA's headers: those of torch's own CUDA where its wheels bring them, else Triton's."""
    folders = [*sorted(site.glob('nvidia/*/include')), site / 'triton/backends/nvidia/include']
    folders = [folder for folder in folders if folder.is_dir()]
    if not any((folder / 'cuda_runtime_api.h').is_file() for folder in folders):
        raise Unavailable('cuda_runtime_api.h is in none of the wheels beside torch')
    return folders


def _generated(names: set[str]) -> str:
    return ''.join(f'long {name}(void) {{ return 0; }}\n' for name in sorted(names))


def build(folder: Path) -> dict[str, str]:
    """Compile into ``folder``; returns the environment variables of a process that sees the stand-in.

    Raises:
        Unavailable: no gcc or nm, no CUDA build of torch, or something that does not compile.
    """
    missing = [tool for tool in ('gcc', 'nm') if shutil.which(tool) is None]
    if missing:
        raise Unavailable(f'the stand-in GPU needs {" and ".join(missing)}')
    if sys.platform != 'linux':
        raise Unavailable('the stand-in GPU is for Linux')
    torch = _folder_of('torch')
    libraries = [torch / 'lib' / f'lib{name}.so' for name in LIBRARIES]
    if not libraries[0].is_file():
        raise Unavailable('this torch was built without CUDA: install the ordinary wheel')
    libraries += sorted(_folder_of('torchvision').glob('*.so'))
    folder = Path(folder).resolve()
    (folder / 'lib').mkdir(parents=True, exist_ok=True)
    headers = _headers(torch.parent)
    compiler = ['gcc', '-fPIC', '-O1', '-w', '-fno-builtin', *(f'-I{path}' for path in headers)]
    version = re.search(r'define NCCL_VERSION_CODE (\d+)', _text(headers, 'nccl.h'))
    compiler += [f'-DSTANDIN_NCCL={version[1]}'] if version else []
    wanted = set().union(*(_symbols(path, '--undefined-only') for path in libraries if path.is_file()))
    _link(compiler, folder / 'libstandin.so', ('runtime', 'libraries'), {n for n in wanted if REPLACED.fullmatch(n)})
    driver = set(re.findall(r'CUDAAPI\s+(cu\w+)\s*\(', _text(headers, 'cuda.h')))
    driver |= {f'{name}_v2' for name in driver if not re.search(r'_(v\d|ptsz)$', name)}
    _link(compiler, folder / 'lib/libcuda.so.1', ('driver',), driver)
    (folder / 'lib/libcuda.so').unlink(missing_ok=True)
    (folder / 'lib/libcuda.so').symlink_to('libcuda.so.1')
    return environment(folder)


def _text(headers: list[Path], name: str) -> str:
    return next((text for path in headers for text in [path / name] if text.is_file()), Path(os.devnull)).read_text()


def _link(compiler: list[str], library: Path, sources: tuple[str, ...], wanted: set[str]) -> None:
    """One library of the sources and, for what is wanted beyond them, functions that return 0."""
    objects = [library.parent / f'{source}.o' for source in sources]
    for source, target in zip(sources, objects, strict=True):
        _run(*compiler, '-c', '-o', target, HERE / f'{source}.c')
    by_hand = set().union(*(_symbols(path, '--defined-only') for path in objects))
    rest = library.parent / f'rest_of_{sources[0]}.c'
    rest.write_text(_generated(wanted - by_hand))
    _run(*compiler, '-shared', '-o', library, *objects, rest, '-ldl', '-lpthread')


def environment(folder: Path) -> dict[str, str]:
    """What a process needs to see the stand-in of ``folder``, in addition to its own environment."""
    before = os.environ.get('PYTHONPATH')
    return dict(
        LD_PRELOAD=str(folder / 'libstandin.so'),
        LD_LIBRARY_PATH=str(folder / 'lib'),
        TRITON_LIBCUDA_PATH=str(folder / 'lib'),
        TRITON_CACHE_DIR=str(folder / 'triton'),
        TORCHINDUCTOR_CACHE_DIR=str(folder / 'inductor'),
        TORCHINDUCTOR_COMPILE_THREADS='1',
        PYTORCH_KERNEL_CACHE_PATH=str(folder / 'kernels'),
        PYTHONPATH=os.pathsep.join([str(HERE / 'site'), *([before] if before else [])]),
        OMP_NUM_THREADS='1',
        STANDIN_GPU='1',
    )


def check(variables: dict[str, str]) -> str:
    """Try what every training does (check_standin.py) on the stand-in; returns the end of the error, '' if none."""
    done = subprocess.run(
        [sys.executable, str(HERE / 'check_standin.py')],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return '' if done.returncode == 0 else done.stderr.strip()[-1000:] or f'exit code {done.returncode}'


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    folder = Path(sys.argv[1]).resolve()
    try:
        variables = build(folder)
    except Unavailable as error:
        raise SystemExit(f'error: {error}') from None
    lines = ''.join(f'export {name}={shlex.quote(value)}\n' for name, value in variables.items())
    script = folder / 'run.sh'
    script.write_text(f'#!/bin/bash\n# run.sh COMMAND...: with the stand-in GPU\n{lines}exec "$@"\n')
    script.chmod(0o755)
    error = check(variables)
    if error:
        raise SystemExit(f'error: built in {folder}, but this torch does not run on it: {error}')
    print(script)


if __name__ == '__main__':
    main()
