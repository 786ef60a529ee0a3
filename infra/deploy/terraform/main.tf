# The bucket of a corpus on AWS, the disk that runs lie on, and the profile under which the nodes of infra/deploy/aws.yaml
# read and write the bucket.
#   terraform -chdir=infra/deploy/terraform apply -var bucket=my-corpus

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "bucket" {
  type        = string
  description = "Name of the bucket that holds datasets and token shards."
}

variable "region" {
  type        = string
  description = "Where the bucket lies; the cluster should be there too."
  default     = "us-west-2"
}

provider "aws" {
  region = var.region
}

resource "aws_s3_bucket" "corpus" {
  bucket = var.bucket
}

resource "aws_s3_bucket_public_access_block" "corpus" {
  bucket                  = aws_s3_bucket.corpus.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

# Parts of uploads that a lost node never finished would be paid for without end.
resource "aws_s3_bucket_lifecycle_configuration" "corpus" {
  bucket = aws_s3_bucket.corpus.id

  rule {
    id     = "unfinished-uploads"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 3
    }
  }
}

# The disk that all nodes share: checkpoints and histories of runs.
data "aws_vpc" "default" {
  default = true
}

data "aws_subnets" "default" {
  filter {
    name   = "vpc-id"
    values = [data.aws_vpc.default.id]
  }
  filter {
    name   = "default-for-az"
    values = ["true"]
  }
}

resource "aws_security_group" "runs" {
  name        = "omnimill-runs"
  description = "NFS from the nodes of the cluster"
  vpc_id      = data.aws_vpc.default.id

  ingress {
    from_port   = 2049
    to_port     = 2049
    protocol    = "tcp"
    cidr_blocks = [data.aws_vpc.default.cidr_block]
  }
}

resource "aws_efs_file_system" "runs" {
  encrypted       = true
  throughput_mode = "elastic"
}

resource "aws_efs_mount_target" "runs" {
  for_each        = toset(data.aws_subnets.default.ids)
  file_system_id  = aws_efs_file_system.runs.id
  subnet_id       = each.value
  security_groups = [aws_security_group.runs.id]
}

data "aws_iam_policy_document" "ec2" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "node" {
  statement {
    actions   = ["s3:ListBucket", "s3:GetBucketLocation"]
    resources = [aws_s3_bucket.corpus.arn]
  }
  statement {
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.corpus.arn}/*"]
  }
  # The head node starts and ends the others.
  statement {
    actions   = ["ec2:RunInstances", "ec2:TerminateInstances", "ec2:CreateTags", "ec2:Describe*"]
    resources = ["*"]
  }
  statement {
    actions   = ["iam:PassRole", "iam:GetInstanceProfile"]
    resources = [aws_iam_role.node.arn, aws_iam_instance_profile.node.arn]
  }
}

resource "aws_iam_role" "node" {
  name               = "omnimill-node"
  assume_role_policy = data.aws_iam_policy_document.ec2.json
}

resource "aws_iam_role_policy" "node" {
  name   = "omnimill-node"
  role   = aws_iam_role.node.id
  policy = data.aws_iam_policy_document.node.json
}

resource "aws_iam_instance_profile" "node" {
  name = "omnimill-node"
  role = aws_iam_role.node.name
}

output "root" {
  description = "For --root."
  value       = "s3://${aws_s3_bucket.corpus.bucket}/corpus"
}

output "runs" {
  description = "The file server to mount on every node, see aws.yaml."
  value       = aws_efs_file_system.runs.dns_name
}
