output "source" {
  description = "What nodes mount, as the node script reads it: none, efs:HOST or lustre:SOURCE. Known once it can be mounted."
  value = (
    var.kind == "efs" ? "efs:${aws_efs_mount_target.this[0].ip_address}" :
    var.kind == "lustre" ? "lustre:${aws_fsx_lustre_file_system.this[0].dns_name}@tcp:/${aws_fsx_lustre_file_system.this[0].mount_name}" :
    "none"
  )
}
