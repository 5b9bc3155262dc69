# What `packer init` fetches; a file of its own, since a Packer before 1.7 has it built in and does not know this block.
packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "~> 1.3"
    }
  }
}
