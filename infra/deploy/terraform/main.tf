# The bucket of a corpus on AWS, and the profile under which the nodes of infra/deploy/aws.yaml read and write it.
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
