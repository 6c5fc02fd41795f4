#!/usr/bin/env bash
# Builds and tries both images where no container engine runs and no registry is reached:
#   tests/docker/build.sh [ARGUMENTS OF BUILDAH BUD]
#
# As root, with debootstrap and buildah (Debian: apt install debootstrap buildah). What the Dockerfiles start from is
# made here of Debian's packages. What pip must be told goes in as buildah's arguments, such as --volume.
set -euo pipefail

BASE=localhost/flowprep-base:trixie
export BUILDAH_ISOLATION=chroot

make_base() {
    local tree container
    tree=$(mktemp --directory)
    debootstrap --variant=minbase trixie "$tree/root" >"$tree/log" ||
        { cat "$tree/log" && exit 1; }
    # As the slim images: no manuals, no translations, now and later.
    printf 'path-exclude /usr/share/%s/*\n' doc info locale man >"$tree/root/etc/dpkg/dpkg.cfg.d/docker"
    rm -rf "$tree"/root/usr/share/{doc,info,locale,man} "$tree"/root/var/{cache/apt,lib/apt/lists}/*
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$tree/root" / >/dev/null
    buildah commit --quiet --rm "$container" "$BASE" >/dev/null
    rm -rf "$tree"
}

unpacked_mb() {
    local container
    container=$(buildah from "$1")
    du --summarize --block-size=MB "$(buildah mount "$container")" | cut -f1
    buildah rm "$container" >/dev/null
}

main() {
    cd "$(dirname "$0")/../.."
    buildah inspect --type image "$BASE" >/dev/null 2>&1 || make_base
    local kind
    log=$(mktemp)
    trap 'rm "$log"' EXIT
    for kind in cpu cuda; do
        SECONDS=0
        buildah bud --build-arg BASE="$BASE" "$@" --file docker/$kind/Dockerfile --tag flowprep:$kind . >"$log" 2>&1 ||
            { tail -n 30 "$log" && exit 1; }
        echo "== $kind: built in $SECONDS s, $(unpacked_mb flowprep:$kind) unpacked"
        RUNNER=buildah tests/docker/smoke.sh flowprep:$kind $kind
    done
}

main "$@"
