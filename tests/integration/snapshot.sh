#!/bin/sh
# What a node has that removal must leave as it was: one line each, to be compared by diff.
# Left out: the loader's cache, which every library renews, the files of users, of which the names are compared, and /etc/hosts, which
# podman writes anew when a node is restarted.
export LC_ALL=C
dpkg-query -W -f 'package ${Package}:${Architecture} ${Version} ${Status}\n'
apt-mark showmanual | sed 's/^/manual /'
apt-mark showhold | sed 's/^/hold /'
cut -d : -f 1 /etc/passwd | sed 's/^/user /'
cut -d : -f 1 /etc/group | sed 's/^/group /'
find /etc -type f ! -name ld.so.cache ! -path /etc/hosts ! -name 'passwd*' ! -name 'group*' ! -name 'shadow*' ! -name 'gshadow*' \
	-exec sha256sum {} + | sort -k 2 | sed 's/^/file /'
find /etc /usr/local /opt -type l -printf 'link %p -> %l\n' | sort
find /etc /usr/local /opt -path /opt/recorded -prune -o -type d -printf 'directory %p %m\n' | sort
for path in /var/lib/gpufleet /var/cache/gpufleet /var/cache/gpufleet-runfiles /opt/gpufleet; do
	if [ -e "$path" ]; then echo "path $path"; fi
done
