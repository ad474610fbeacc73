output "next" {
  description = "The commands that come next."
  value       = module.cluster.next
}

output "network" {
  description = "What launch/ray-cluster.yaml needs."
  value       = module.cluster.network
}

output "bucket_name" {
  description = "The bucket."
  value       = module.cluster.bucket_name
}

output "user_data" {
  description = "Rendered cloud-init of head and worker; it holds no secret."
  value       = module.cluster.user_data
}
