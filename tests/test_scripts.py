"""The scripts that make certificates and keys."""

import subprocess
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

SCRIPTS = Path(__file__).parent.parent / "scripts"


def run(script: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([SCRIPTS / script, *map(str, arguments)], capture_output=True, text=True)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_server_certificate_is_of_the_authority_for_the_given_hosts_and_nobody_else_reads_its_key(
    tmp_path: Path,
) -> None:
    assert run("certificates.sh", tmp_path, "fed.example.org", "10.0.0.1", "fd00::1").returncode == 0
    server, authority = certificate(tmp_path / "server.pem"), certificate(tmp_path / "ca.crt")
    server.verify_directly_issued_by(authority)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fed.example.org"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("10.0.0.1"), ip_address("fd00::1")]
    for key in ("ca.key", "server.key"):
        assert (tmp_path / key).stat().st_mode & 0o077 == 0


def test_a_renewed_server_certificate_is_of_the_same_authority(tmp_path: Path) -> None:
    run("certificates.sh", tmp_path, "localhost")
    authority, server = certificate(tmp_path / "ca.crt"), certificate(tmp_path / "server.pem")
    run("certificates.sh", tmp_path, "localhost")
    assert certificate(tmp_path / "ca.crt") == authority
    renewed = certificate(tmp_path / "server.pem")
    renewed.verify_directly_issued_by(authority)
    assert renewed.serial_number != server.serial_number


@pytest.mark.parametrize("host", ["https://fed.example.org", "fed.example.org:8000", "a b", ""])
def test_what_is_no_host_is_named(tmp_path: Path, host: str) -> None:
    done = run("certificates.sh", tmp_path / "new", host)
    assert done.returncode == 2 and f"'{host}'" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "new" / "ca.key").exists()


def test_node_keys_belong_together_and_are_kept(tmp_path: Path) -> None:
    assert run("node-keys.sh", tmp_path, "north", "south").returncode == 0
    private = (tmp_path / "north").read_bytes()
    public = load_ssh_public_key((tmp_path / "north.pub").read_bytes())
    assert load_ssh_private_key(private, None).public_key() == public
    assert (tmp_path / "north").stat().st_mode & 0o077 == 0
    assert run("node-keys.sh", tmp_path, "north", "west").returncode == 0
    assert (tmp_path / "north").read_bytes() == private and (tmp_path / "west.pub").exists()


@pytest.mark.parametrize("name", ["../north", "a b", "", "-f"])
def test_what_is_no_name_of_a_node_is_named(tmp_path: Path, name: str) -> None:
    done = run("node-keys.sh", tmp_path / "new", name)
    assert done.returncode == 2 and f"'{name}'" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("script", ["certificates.sh", "node-keys.sh", "federate.sh"])
def test_without_arguments_a_script_says_its_usage(script: str) -> None:
    done = run(script)
    assert done.returncode == 2 and f"usage: {script}" in done.stderr
