#!/usr/bin/env bash
# Collects, on a machine with internet, the wheels that a GPU node without internet lacks.
#
#   tools/wheelhouse.sh PYTHON_VERSION DIR [--full]
#   tools/wheelhouse.sh 3.12 wheelhouse          # then copy wheelhouse/ over and run there: bash wheelhouse/install.sh
#
# Without --full the node is taken to have what its image brings for torch: torch, torchvision, numpy, scipy, matplotlib,
# scikit-learn, scikit-image, opencv, pillow, pyyaml, packaging and rich. --full brings everything but torch and torchvision.
# PYTHON_VERSION is the node's (3.10 to 3.12); this machine's may differ. PYTHON chooses the interpreter whose pip is
# used here, ARCH (x86_64, aarch64) the node's processor.
set -euo pipefail

if [[ $# -lt 2 || ! $1 =~ ^3\.1[0-2]$ || ( $# -gt 2 && ${3:-} != --full ) ]]; then
  sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
version=$1 full=${3:-}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mkdir -p "$2" && dir=$(cd "$2" && pwd)
python=${PYTHON:-python3}
arch=${ARCH:-x86_64}
export MMCV_WITH_OPS=0 PIP_DISABLE_PIP_VERSION_CHECK=1

# What a node with torch lacks: the OpenMMLab packages, what they import, and the two compiled ones.
needed='onedl-mmengine onedl-mmcv onedl-mmpretrain onedl-mmdetection pycocotools shapely addict yapf platformdirs
  terminaltables termcolor modelindex model-index ordered-set mat4py importlib-metadata lazy-importer zipp einops markdown
  click six tqdm imaug imageio simplejpeg safetensors'
# In a full house only these stay out: torch comes from the node, and one opencv is enough (the one without libGL).
skipped='torch torchvision pip opencv-python'

# pins: the lines name==version of constraints.txt that hold for the node's Python. The markers are evaluated here
# because pip would evaluate them for the Python it runs in.
pins() {
  "$python" - "$version" "$root/constraints.txt" <<'PY'
import sys
try:
    from packaging.requirements import Requirement
except ImportError:
    from pip._vendor.packaging.requirements import Requirement
version, path = sys.argv[1:]
for line in open(path):
    if line.strip() and not line.startswith('#'):
        requirement = Requirement(line.strip())
        if requirement.marker is None or requirement.marker.evaluate({'python_version': version}):
            print(requirement.name + str(requirement.specifier))
PY
}

# fetch REQUIREMENT: the node's wheel from the index, or a pure Python one built here from the source distribution.
fetch() {
  local tags=() tag work
  for tag in manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014 manylinux_2_12 manylinux2010 \
    manylinux1; do
    tags+=(--platform "${tag}_$arch")
  done
  if "$python" -m pip download --quiet --no-deps --only-binary=:all: --implementation cp \
    --python-version "$version" "${tags[@]}" --dest "$dir" "$1" 2>/dev/null; then return; fi
  work=$(mktemp -d)
  "$python" -m pip wheel --quiet --no-deps --wheel-dir "$work" "$1" </dev/null
  if ! compgen -G "$work/*-none-any.whl" >/dev/null; then
    echo "$1 has no wheel for Python $version on $arch and is not pure Python: $(ls "$work")" >&2
    exit 1
  fi
  mv "$work"/*.whl "$dir" && rm -r "$work"
}

own_wheel() { # from a copy: a build leaves files in the tree it is run in
  local work
  work=$(mktemp -d)
  cp -r "$root"/{mim_mm,configs,tools,pyproject.toml,setup.py,MANIFEST.in,LICENSE,README.md} "$work"
  rm -rf "$work/mim_mm/.mim"
  "$python" -m pip wheel --quiet --no-deps --wheel-dir "$dir" "$work"
  rm -r "$work"
}

rm -f "$dir"/*.whl "$dir/install.txt"
while read -r pin; do
  name=${pin%%==*}
  if [[ -n $full ]]; then
    [[ " $(echo $skipped) " == *" $name "* ]] && continue
  else
    [[ " $(echo $needed) " == *" $name "* ]] || continue
  fi
  echo "$pin"
  fetch "$pin"
  # only the OpenMMLab packages are forced to their version; whatever else the node has already stays
  case $name in onedl-*) echo "$pin" ;; *) echo "$name" ;; esac >>"$dir/install.txt"
done < <(pins)
own_wheel
echo mim_mm >>"$dir/install.txt"

cat >"$dir/install.sh" <<'SH'
#!/usr/bin/env bash
# Installs this folder without network: PYTHON=python3 bash install.sh [pip options, e.g. --target DIR]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exec "${PYTHON:-python3}" -m pip install --no-index --no-deps --find-links "$here" -r "$here/install.txt" "$@"
SH
chmod +x "$dir/install.sh"
echo "$(ls "$dir"/*.whl | wc -l) wheels, $(du -sh "$dir" | cut -f1), in $dir. On the node: bash $(basename "$dir")/install.sh"
