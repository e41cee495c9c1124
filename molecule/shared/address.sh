#!/bin/sh
# Prints the address of a node: address.sh .cache/nodes/WORLD NAME
exec sed -n "/^Host $2\$/,/HostName/s/.*HostName //p" "$1/ssh_config"
