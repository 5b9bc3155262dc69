#!/bin/sh
# Starts page, scaler, janitor, drop box and Flower behind Caddy; settings are the exported IRS_* variables, of them
# IRS_ADDRESS is the address to take, by its allocation id. Lies beside what it installs.
set -eu
here=$(dirname "$0")

# One call of AWS with the rights of this instance: SERVICE OPERATION WHAT-TO-SAY NAME=VALUE...
aws() {
    /opt/irs/bin/python -c '
import boto3, os, sys
service, operation, said, *given = sys.argv[1:]
client = boto3.client(service, region_name=os.environ["IRS_REGION"])
print(getattr(client, operation)(**dict(one.split("=", 1) for one in given))[said])
' "$@"
}

instance=$(sh "$here/../machine/instance-id.sh")
aws ec2 associate_address AssociationId AllocationId="$IRS_ADDRESS" InstanceId="$instance"

sh "$here/../machine/settle.sh" /etc/irs/front.env
token=$(aws secretsmanager get_secret_value SecretString SecretId="$IRS_STACK/web-token")
echo "IRS_WEB_TOKEN=$token" > /etc/irs/web.env
password=$(aws secretsmanager get_secret_value SecretString SecretId="$IRS_STACK/flower-password")
echo "IRS_FLOWER_PASSWORD=$password" > /etc/irs/flower.env

install -D --mode 644 "$here/Caddyfile" /etc/caddy/Caddyfile
install -D --mode 644 "$here/caddy.conf" /etc/systemd/system/caddy.service.d/irs.conf
install --mode 644 "$here"/irs-*.service /etc/systemd/system/
systemctl daemon-reload
for part in web scaler janitor drops flower; do
    systemctl enable --now "irs-$part.service"
done
# Debian's package has started it already, with a page of its own.
systemctl enable caddy.service
systemctl restart caddy.service
