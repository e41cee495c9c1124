#!/usr/bin/python
# Copyright: gpufleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: driver_sign
short_description: Has DKMS sign the driver where the kernel wants that
description:
  - Run it before a driver is touched. Where the kernel takes signed modules only (Secure Boot), it fails unless the driver
    will be signed with a key that the firmware trusts.
  - A key that is given must be there, fit its certificate and, where signatures are needed, be enrolled. DKMS 3 is then
    told to sign with it.
  - Without one, a key that DKMS made for itself is taken where it is enrolled.
version_added: 0.1.0
author:
  - gpufleet contributors (@gpufleet)
extends_documentation_fragment:
  - gpufleet.stack.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
options:
  key:
    description: Path of the private key on the node (PEM, without passphrase). Empty for none.
    type: str
    default: ""
  certificate:
    description: Path of its certificate on the node (DER or PEM). Empty for none.
    type: str
    default: ""
  signed_packages:
    description: The planned modules come ready and signed from the distribution.
    type: bool
    default: false
  sysroot:
    description: The node's root. Another directory than V(/) stands for the node's files in tests.
    type: path
    default: /
"""

EXAMPLES = r"""
- name: Have the driver signed
  gpufleet.stack.driver_sign:
    key: /root/mok/site.key
    certificate: /root/mok/site.der
"""

RETURN = r"""
required:
  description: Whether the kernel takes signed modules only.
  returned: always
  type: bool
  sample: true
certificate:
  description: Certificate of the key that DKMS signs with, null where it need not sign.
  returned: success
  type: str
  sample: /root/mok/site.der
settings:
  description: The file that tells DKMS its key, null where there is none of ours.
  returned: success
  type: str
  sample: /etc/dkms/framework.conf.d/gpufleet-signing.conf
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.gpufleet.stack.plugins.module_utils import commands, driver_swap, kernel, secure_boot
from ansible_collections.gpufleet.stack.plugins.module_utils.errors import GpufleetError
from ansible_collections.gpufleet.stack.plugins.module_utils.pci import read_text


def write(module: AnsibleModule, path: str, text: str) -> None:
    """Write the settings as a whole or not at all."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(draft, 0o644)
    module.atomic_move(draft, path)


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "key": {"type": "str", "default": "", "no_log": False},
            "certificate": {"type": "str", "default": ""},
            "signed_packages": {"type": "bool", "default": False},
            "sysroot": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    run = commands.runner(module)
    root, key, certificate = (module.params[name] for name in ("sysroot", "key", "certificate"))
    # One of the two alone is a slip; the check then names the path that is missing.
    given = secure_boot.Pair(key, certificate) if key or certificate else None
    required = driver_swap.signatures_required(kernel.facts(root))
    try:
        pair = secure_boot.decide(given, required, module.params["signed_packages"], run, root, module.tmpdir)
    except GpufleetError as error:
        module.fail_json(msg=str(error), error=error.as_dict(), required=required)
    path = os.path.join(root, secure_boot.SETTINGS.lstrip("/"))
    before = read_text(path)
    after = secure_boot.settings(given).strip() if given else None
    changed = before != after
    if changed and not module.check_mode:
        if after is None:
            os.unlink(path)
        else:
            write(module, path, after + "\n")
    module.exit_json(
        changed=changed,
        required=required,
        certificate=pair.certificate if pair else None,
        settings=secure_boot.SETTINGS if given else None,
        diff={"before_header": path, "after_header": path, "before": before or "", "after": after or ""},
    )


if __name__ == "__main__":
    main()
