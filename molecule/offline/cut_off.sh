#!/bin/sh
# Puts a firewall around a node: cut_off.sh tests/tools/nodes WORLD NAME
set -eu
inside() {
    nsenter --net --target "$pid" "$@"
}
pid=$(podman inspect --format '{{.State.Pid}}' "$("$1" name "$2" "$3")")
inside nft -f - <<'END'
table inet denied {
  counter refused {}
  chain output {
    type filter hook output priority 0; policy drop;
    oif lo accept
    ct state established,related accept
    counter name refused drop
  }
}
END
# It has to hold.
gateway=$(inside ip route show default | cut -d ' ' -f 3)
! inside timeout 2 bash -c "exec 3<>/dev/tcp/$gateway/53" 2>/dev/null
! inside nft list counters table inet denied | grep -q 'packets 0 '
