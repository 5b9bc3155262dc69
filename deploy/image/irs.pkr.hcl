# An image with all that workers and the front need: packer init . && packer build -var wheel=../../dist/irs-0.1.0-py3-none-any.whl .
# Its AMI goes into an SSM parameter, whose name is the template's Image: docs/aws.md.

variable "wheel" {
  type        = string
  description = "Path of irs' wheel, as `make release` builds it."
}

variable "region" {
  type        = string
  default     = "us-east-1"
  description = "Region in which the image is made and used."
}

variable "architecture" {
  type        = string
  default     = "amd64"
  description = "Architecture of all instances: amd64, or arm64 with a builder such as c7g.large."
}

variable "builder" {
  type        = string
  default     = "c7i.large"
  description = "Instance type that the image is made on."
}

variable "torch_index" {
  type        = string
  default     = "https://download.pytorch.org/whl/cpu"
  description = "Where torch comes from: that without CUDA, or such as https://download.pytorch.org/whl/cu130."
}

locals {
  name = basename(var.wheel)
}

source "amazon-ebs" "irs" {
  region        = var.region
  instance_type = var.builder
  ssh_username  = "admin"
  ami_name      = "irs-${var.architecture}-${formatdate("YYYYMMDD-hhmmss", timestamp())}"
  encrypt_boot  = true
  # Packer's own, of no use to anybody later.
  ssh_clear_authorized_keys = true

  source_ami_filter {
    owners      = ["136693071363"] # Debian
    most_recent = true
    filters = {
      name                = "debian-12-${var.architecture}-*"
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
  }

  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_size           = 16
    volume_type           = "gp3"
    iops                  = 3000
    throughput            = 125
    delete_on_termination = true
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  tags = {
    "irs:wheel" = local.name
  }
}

build {
  sources = ["source.amazon-ebs.irs"]

  # The machine's own first start says where packages come from.
  provisioner "shell" {
    inline = ["cloud-init status --wait"]
  }

  provisioner "file" {
    source      = var.wheel
    destination = "/tmp/${local.name}"
  }

  provisioner "shell" {
    script          = "${path.root}/../machine/install.sh"
    execute_command = "sudo env {{ .Vars }} sh {{ .Path }} worker,web,scaler,flower caddy"
    environment_vars = [
      "IRS_WHEEL=file:///tmp/${local.name}",
      "IRS_TORCH_INDEX=${var.torch_index}",
    ]
  }

  provisioner "shell" {
    inline = [
      "/opt/irs/bin/irs --version",
      # The front starts it; a worker does without.
      "sudo systemctl disable --now caddy.service",
      "rm /tmp/${local.name}",
      # What the next machine is to find out for itself.
      "sudo cloud-init clean --logs --machine-id",
    ]
  }
}
